//! The account a private cluster runs as.
//!
//! Postgres refuses to run as root, so a root user needs somebody else to run
//! it. Everyone else runs it as themselves.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tokio::process::Command;

use super::LocalPostgresError;

/// An unprivileged account from the user database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Returns the account to switch to, or `None` when this process is
    /// already unprivileged.
    pub(super) fn for_server() -> Result<Option<Self>, LocalPostgresError> {
        if !is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "_postgres", "nobody"]
            .iter()
            .find_map(|name| find(&users, name))
            .map(Some)
            .ok_or(LocalPostgresError::NoAccount)
    }
}

/// Makes a command run as the account.
pub(super) fn run_as(command: &mut Command, account: Option<Account>) {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
}

/// Tells whether this process runs as root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tells whether every account may pass through a directory. Parts that do
/// not exist yet do not count, because they are created passable.
pub(super) fn everyone_can_enter(path: &Path) -> bool {
    path.ancestors()
        .filter_map(|part| fs::metadata(part).ok())
        .all(|part| part.permissions().mode() & 0o001 != 0)
}

/// Checks that nobody but these users can replace what is at `path`: each part
/// of it, links resolved, is owned by one of them, and others may write to it
/// only where the sticky bit keeps them from what is not theirs.
///
/// # Errors
///
/// Names the part that somebody else controls.
pub(super) fn is_controlled_by(path: &Path, users: &[u32]) -> io::Result<()> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let path = path.canonicalize()?;
    for part in path.ancestors() {
        let metadata = fs::metadata(part)?;
        let mode = metadata.mode();
        let is_open = mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0;
        if !users.contains(&metadata.uid()) || is_open {
            let reason = format!("{} can be changed by another user", part.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
    }
    Ok(())
}

/// Finds an account by name in the text of a user database.
fn find(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\n\
        postgres2:x:7:8::/:/bin/sh\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n\
        broken:x:none:0::/:/bin/sh\n";

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        assert_eq!(find(USERS, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(find(USERS, "nobody"), None);
    }

    #[test]
    fn an_account_without_numbers_is_no_account() {
        assert_eq!(find(USERS, "broken"), None);
    }

    #[test]
    fn what_another_user_owns_or_may_write_to_is_theirs_to_control() {
        let own = rustix::process::geteuid().as_raw();
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("directory");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_controlled_by(&directory, &[0, own]).is_ok());
        let error = is_controlled_by(&directory, &[own + 1]).unwrap_err().to_string();
        assert!(error.contains("another user"), "{error}");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(is_controlled_by(&directory, &[0, own]).is_err());
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(is_controlled_by(&link, &[0, own]).is_err());
    }

    #[test]
    fn a_directory_below_a_closed_one_is_out_of_reach() {
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!everyone_can_enter(&closed.join("below")));
        assert!(everyone_can_enter(Path::new("/")));
    }
}
