//! Where the Postgres programs of this machine are.
//!
//! Distributions rarely put the server programs on the search path, so the
//! usual installation directories are looked at as well.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::directory::Directory;
use super::{LocalPostgresError, account};

/// The user id of root.
const ROOT: u32 = 0;

/// The oldest major version taskcast runs on.
const OLDEST: u32 = 14;

/// One installation of the Postgres server programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Returns the directory of the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the major version, such as 17.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Returns the path of one program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Looks for a usable installation in a directory by asking its server
    /// program for its version.
    fn inspect(directory: &Path) -> Option<Self> {
        if !directory.join("initdb").is_file() {
            return None;
        }
        let program = directory.join("postgres");
        if !may_run(&program) {
            return None;
        }
        let output = Command::new(program).arg("--version").output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
        let directory = directory.to_owned();
        (major >= OLDEST).then_some(Self { directory, major })
    }
}

/// Finds the installed Postgres server programs of version 14 or newer, the
/// preferred one first: the search path, then what `pg_config` names, then the
/// usual directories with the newest version first.
pub fn find_binaries(search_path: Option<&OsStr>) -> Vec<Binaries> {
    let searched: Vec<PathBuf> =
        search_path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let configured = searched
        .iter()
        .map(|directory| directory.join("pg_config"))
        .find(|program| program.is_file() && may_run(program))
        .and_then(|program| Command::new(program).arg("--bindir").output().ok())
        .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));

    let mut found: Vec<Binaries> = Vec::new();
    for directory in searched.into_iter().chain(configured).chain(usual_directories()) {
        if found.iter().any(|known| known.directory == directory) {
            continue;
        }
        found.extend(Binaries::inspect(&directory));
    }
    found
}

/// Says whether a program may be run. Root runs only what root alone can
/// replace: the search path may lead through a directory of another user.
fn may_run(program: &Path) -> bool {
    !account::is_root() || account::is_controlled_by(program, &[ROOT]).is_ok()
}

/// Returns the one command that installs Postgres on this machine, judged by
/// the package manager on the search path.
pub fn install_command(search_path: Option<&OsStr>) -> Option<String> {
    const MANAGERS: [(&str, &str, bool); 6] = [
        ("apt-get", "apt-get install -y postgresql", true),
        ("dnf", "dnf install -y postgresql-server", true),
        ("zypper", "zypper install -y postgresql-server", true),
        ("pacman", "pacman -S --noconfirm postgresql", true),
        ("apk", "apk add postgresql", true),
        ("brew", "brew install postgresql", false),
    ];
    let directories: Vec<PathBuf> = std::env::split_paths(search_path?).collect();
    let (_, command, needs_root) = MANAGERS.into_iter().find(|(manager, _, _)| {
        directories.iter().any(|directory| directory.join(manager).is_file())
    })?;
    Some(if needs_root && !account::is_root() {
        format!("sudo {command}")
    } else {
        command.to_owned()
    })
}

/// Chooses the installation for a cluster: the one that made it, or the
/// preferred one when there is none yet.
pub(super) fn choose<'a>(
    binaries: &'a [Binaries],
    made_by: Option<u32>,
    directory: &Directory,
) -> Result<&'a Binaries, LocalPostgresError> {
    match made_by {
        None => binaries.first().ok_or(LocalPostgresError::NoBinaries),
        Some(major) => {
            binaries.iter().find(|candidate| candidate.major == major).ok_or_else(|| {
                LocalPostgresError::WrongVersion { directory: directory.path().to_owned(), major }
            })
        }
    }
}

/// Reads the major version out of `postgres (PostgreSQL) 17.2 (Debian …)`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split(')').nth(1)?.trim_start();
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// Lists the directories that packages use, newest version first in each place.
fn usual_directories() -> Vec<PathBuf> {
    // Each place holds one directory per version, with the programs below it.
    const VERSIONED: [(&str, &str, &str); 5] = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ];
    const PLAIN: [&str; 6] = [
        "/usr/local/pgsql/bin",
        "/usr/local/bin",
        "/opt/homebrew/bin",
        "/home/linuxbrew/.linuxbrew/bin",
        "/Applications/Postgres.app/Contents/Versions/latest/bin",
        "/usr/bin",
    ];
    VERSIONED
        .iter()
        .flat_map(|(place, prefix, below)| {
            versions_in(Path::new(place), prefix)
                .into_iter()
                .map(move |version| version.join(below))
        })
        .chain(PLAIN.iter().map(PathBuf::from))
        .collect()
}

/// Lists the entries of a directory that end in a version, newest first.
fn versions_in(place: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path()))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_prints() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn versions_are_listed_newest_first_by_number() {
        let place = tempfile::tempdir().unwrap();
        for name in ["pg-9", "pg-17", "pg-16", "pg-x", "other"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let found = versions_in(place.path(), "pg-");
        let expected = ["pg-17", "pg-16", "pg-9"].map(|name| place.path().join(name));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_install_command_follows_the_package_manager() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(install_command(Some(place.path().as_os_str())), None);
        fs::write(place.path().join("apt-get"), "").unwrap();
        let command = install_command(Some(place.path().as_os_str())).unwrap();
        assert!(command.ends_with("apt-get install -y postgresql"), "{command}");
    }
}
