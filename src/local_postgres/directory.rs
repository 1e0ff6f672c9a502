//! The directory of a private cluster and the files in it.
//!
//! `data` is the cluster, `log` what its server wrote since the last start,
//! `port` the remembered port, `password` the superuser's password. Two lock
//! files order the processes that share it: `start.lock` is held while one
//! decides, `in-use.lock` is held shared by everyone who uses the server.
//!
//! A root user hands the directory to an unprivileged account, so nothing in
//! it is trusted: files are opened without following links.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rand::TryRng as _;
use rand::rngs::SysRng;
use rustix::fs::OFlags;
use rustix::process::Pid;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::account::{Account, is_controlled_by, run_as};
use super::{Binaries, LocalPostgresError, POLL, SUPERUSER};

/// The prepared directory of a cluster.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    account: Option<Account>,
}

/// A server found by its pid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunningServer {
    pub(super) pid: Pid,
    pub(super) port: u16,
}

impl Directory {
    /// Creates the directory when missing and gives it to the account.
    pub(super) fn prepare(
        path: &Path,
        account: Option<Account>,
    ) -> Result<Self, LocalPostgresError> {
        let usable = LocalPostgresError::file(path);
        let path = create(path, account).map_err(usable)?;
        Ok(Self { path, account })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Takes the lock under which a server is found, started or stopped.
    pub(super) async fn lock_start(&self, deadline: Instant) -> Result<File, LocalPostgresError> {
        let file = self.open("start.lock", OpenOptions::new().create(true).append(true))?;
        // A blocking lock would hold a thread beyond the deadline.
        while file.try_lock().is_err() {
            if Instant::now() >= deadline {
                return Err(LocalPostgresError::Timeout { directory: self.path.clone() });
            }
            sleep(POLL).await;
        }
        Ok(file)
    }

    /// Marks the server as used for as long as the file stays open. The caller
    /// holds the start lock.
    pub(super) fn mark_in_use(&self) -> Result<File, LocalPostgresError> {
        let file = self.open("in-use.lock", OpenOptions::new().create(true).append(true))?;
        file.lock_shared().map_err(LocalPostgresError::file(&self.path))?;
        Ok(file)
    }

    /// Returns the superuser's password, inventing one for a new cluster.
    pub(super) fn password(&self) -> Result<String, LocalPostgresError> {
        if let Some(password) = self.read("password") {
            return Ok(password);
        }
        if self.is_initialised() {
            return Err(LocalPostgresError::Password { directory: self.path.clone() });
        }
        let mut bytes = [0_u8; 16];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| LocalPostgresError::process(io::Error::other(error)))?;
        let password = format!("{:032x}", u128::from_ne_bytes(bytes));
        self.write("password", &password)?;
        Ok(password)
    }

    /// Tells whether the directory holds a complete cluster.
    pub(super) fn is_initialised(&self) -> bool {
        self.data().join("PG_VERSION").is_file()
    }

    /// Returns the major version that made the cluster, if there is one.
    pub(super) fn major_version(&self) -> Result<Option<u32>, LocalPostgresError> {
        if !self.is_initialised() {
            return Ok(None);
        }
        let path = self.data().join("PG_VERSION");
        let text = fs::read_to_string(&path).map_err(LocalPostgresError::file(&path))?;
        text.trim().parse().map(Some).map_err(|_| {
            LocalPostgresError::file(&path)(io::Error::from(io::ErrorKind::InvalidData))
        })
    }

    /// Makes the cluster. It appears under its name only when it is complete,
    /// so a killed process leaves nothing that looks usable.
    pub(super) async fn initialise(&self, binaries: &Binaries) -> Result<(), LocalPostgresError> {
        let draft = self.path.join("data.new");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(LocalPostgresError::file(&draft))?;
        }
        let output = self
            .command(&binaries.program("initdb"))
            .arg("--pgdata")
            .arg(&draft)
            .arg("--pwfile")
            .arg(self.path.join("password"))
            .args(["--username", SUPERUSER, "--auth", "scram-sha-256"])
            .args(["--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"])
            .kill_on_drop(true)
            .output()
            .await
            .map_err(LocalPostgresError::process)?;
        if !output.status.success() {
            return Err(LocalPostgresError::Initialise {
                directory: self.path.clone(),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        let data = self.data();
        fs::rename(&draft, &data).map_err(LocalPostgresError::file(&data))
    }

    /// Chooses a port on loopback: the remembered one when it is wanted and
    /// free, else any free one, which is then remembered.
    pub(super) fn choose_port(&self, prefer_remembered: bool) -> Result<u16, LocalPostgresError> {
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let remembered = self.read("port").and_then(|port| port.parse().ok());
        if let Some(port) = remembered.filter(|_| prefer_remembered).filter(is_free) {
            return Ok(port);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(LocalPostgresError::process)?
            .port();
        self.write("port", &port.to_string())?;
        Ok(port)
    }

    /// Finds the server that runs on this directory. A pid file that names a
    /// dead process, or a live one that is something else, is no server.
    pub(super) fn running_server(&self) -> Option<RunningServer> {
        let path = self.data().join("postmaster.pid");
        let server = parse_pid_file(&fs::read_to_string(&path).ok()?)?;
        if rustix::process::test_kill_process(server.pid) == Err(rustix::io::Errno::SRCH) {
            return None;
        }
        // The server works in its data directory. Where that can be looked up,
        // a number that was given to another process since is told apart.
        let works_in = fs::read_link(format!("/proc/{}/cwd", server.pid.as_raw_nonzero()));
        if works_in.is_ok_and(|directory| directory != self.data()) {
            // Left in place, the stale file would keep a new server from
            // starting. When it cannot go, that server's log says so.
            fs::remove_file(&path).ok();
            return None;
        }
        Some(server)
    }

    /// Opens the server's log, emptied, so that it cannot grow over restarts.
    pub(super) fn new_log(&self) -> Result<File, LocalPostgresError> {
        self.open("log", OpenOptions::new().create(true).write(true).truncate(true))
    }

    /// Returns the last lines of the server's log.
    pub(super) fn log_end(&self) -> String {
        const TAIL_BYTES: u64 = 2048;
        let mut text = Vec::new();
        let read = self.open("log", OpenOptions::new().read(true)).ok().and_then(|mut log| {
            let length = log.seek(SeekFrom::End(0)).ok()?;
            log.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
            log.take(TAIL_BYTES).read_to_end(&mut text).ok()
        });
        match read {
            Some(1..) => String::from_utf8_lossy(&text).trim().to_owned(),
            Some(0) | None => "its log is empty".to_owned(),
        }
    }

    /// Prepares a Postgres program to run as the account, with an environment
    /// of its own: variables such as `PGDATA` or `LC_ALL` would change it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir(&self.path)
            .stdin(Stdio::null())
            // Out of the terminal's process group: Ctrl-C is for taskcast, which
            // stops the database after the last connection has drained.
            .process_group(0);
        run_as(&mut command, self.account);
        command
    }

    fn read(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        self.open(name, OpenOptions::new().read(true)).ok()?.read_to_string(&mut text).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Replaces a small file in one step.
    fn write(&self, name: &str, text: &str) -> Result<(), LocalPostgresError> {
        let draft = format!("{name}.new");
        let mut file =
            self.open(&draft, OpenOptions::new().create(true).write(true).truncate(true))?;
        let path = self.path.join(name);
        file.write_all(text.as_bytes())
            .and_then(|()| fs::rename(self.path.join(&draft), &path))
            .map_err(LocalPostgresError::file(&path))
    }

    /// Opens a file of the directory that only its owner can read.
    fn open(&self, name: &str, how: &mut OpenOptions) -> Result<File, LocalPostgresError> {
        let path = self.path.join(name);
        let file = how
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(LocalPostgresError::file(&path))?;
        if let Some(Account { uid, gid }) = self.account {
            fchown(&file, Some(uid), Some(gid)).map_err(LocalPostgresError::file(&path))?;
        }
        Ok(file)
    }
}

/// Creates a directory that only its owner can enter and returns its path
/// without links, which is how the server reports it.
fn create(path: &Path, account: Option<Account>) -> io::Result<PathBuf> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let path = match account {
        Some(account) => {
            give_to(path, account)?;
            path.canonicalize()?
        }
        None => path.canonicalize()?,
    };
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed())
        .open(&path)?;
    directory.set_permissions(Permissions::from_mode(0o700))?;
    Ok(path)
}

/// Gives a directory of root to an account. One that is a link, belongs to
/// another user, or stands where another user can replace it, is refused: it
/// may have been planted to have something else given away.
fn give_to(path: &Path, Account { uid, gid }: Account) -> io::Result<()> {
    const ROOT: u32 = 0;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed())
        .open(path)
        .map_err(|error| {
            let is_link = fs::symlink_metadata(path).is_ok_and(|at| at.is_symlink());
            if is_link {
                io::Error::other("it is a link; name the directory itself")
            } else {
                error
            }
        })?;
    let owner = directory.metadata()?.uid();
    if owner != ROOT && owner != uid {
        return Err(io::Error::other("it belongs to another user; choose another directory"));
    }
    if let Some(parent) = path.parent() {
        is_controlled_by(parent, &[ROOT, uid])?;
    }
    fchown(&directory, Some(uid), Some(gid))
}

/// Reads the process id and port out of a server's pid file. A file that is
/// being written lacks the port.
fn parse_pid_file(text: &str) -> Option<RunningServer> {
    let mut lines = text.lines();
    let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?)?;
    let port = lines.nth(2)?.trim().parse().ok()?;
    Some(RunningServer { pid, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::prepare(&place.path().join("cluster"), None).unwrap();
        (place, directory)
    }

    #[test]
    fn a_pid_file_gives_process_and_port() {
        let text = "4711\n/var/lib/x/data\n1700000000\n5433\n\n127.0.0.1\n 1 2\nready   \n";
        let server = parse_pid_file(text).unwrap();
        assert_eq!(server.pid.as_raw_nonzero().get(), 4711);
        assert_eq!(server.port, 5433);
    }

    #[test]
    fn a_half_written_pid_file_names_no_server() {
        assert_eq!(parse_pid_file("4711\n/var/lib/x/data\n"), None);
        assert_eq!(parse_pid_file(""), None);
    }

    #[test]
    fn a_pid_that_now_belongs_to_another_program_is_no_server() {
        let (_place, directory) = directory();
        fs::create_dir(directory.data()).unwrap();
        let pid_file = directory.data().join("postmaster.pid");
        fs::write(&pid_file, format!("{}\nx\n1\n5433\n", std::process::id())).unwrap();
        // Only systems with /proc can tell; elsewhere the connection decides.
        if Path::new("/proc/self/cwd").exists() {
            assert_eq!(directory.running_server(), None);
            assert!(!pid_file.exists());
        }
    }

    #[test]
    fn the_password_is_kept_and_only_the_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_place, directory) = directory();
        let password = directory.password().unwrap();
        assert_eq!(password.len(), 32);
        assert_eq!(directory.password().unwrap(), password);
        let mode = fs::metadata(directory.path().join("password")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let (place, directory) = directory();
        let target = place.path().join("target");
        fs::write(&target, "keep").unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join("log")).unwrap();
        assert!(directory.new_log().is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "keep");
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_not_given_away() {
        let place = tempfile::tempdir().unwrap();
        let (target, link) = (place.path().join("target"), place.path().join("link"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let own = fs::metadata(&target).unwrap();
        let account = Account { uid: own.uid(), gid: own.gid() };
        let error = give_to(&link, account).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        assert!(give_to(&target, account).is_ok());
    }

    #[test]
    fn a_directory_that_others_can_enter_is_closed_to_them() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("cluster");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let directory = Directory::prepare(&path, None).unwrap();
        assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_port_is_remembered_while_it_is_free() {
        let (_place, directory) = directory();
        let port = directory.choose_port(true).unwrap();
        assert_eq!(directory.choose_port(true).unwrap(), port);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_ne!(directory.choose_port(true).unwrap(), port);
    }
}
