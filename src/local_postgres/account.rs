//! The account a private cluster runs as.
//!
//! Postgres refuses to run as root, so a root user needs somebody else to run
//! it. Everyone else runs it as themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
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
    fn a_directory_below_a_closed_one_is_out_of_reach() {
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!everyone_can_enter(&closed.join("below")));
        assert!(everyone_can_enter(Path::new("/")));
    }
}
