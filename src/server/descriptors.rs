//! The limit on open files, which is also one on connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for the database, webhooks, files and the log.
const RESERVED: u64 = 128;

/// Fewer than this are soon used up by readers.
const FEW: u64 = 4_096;

/// Raises the soft limit to the hard one and returns how many connections may
/// be open at a time. Warns where that is few.
pub(super) fn max_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current;
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = limit.maximum,
            Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
        }
    }
    // Without a number there is no limit.
    let Some(files) = current else { return usize::MAX };
    if files < FEW {
        tracing::warn!(
            files,
            "few files may be open at a time, and each connection takes one; \
             raise the limit (ulimit -n, or LimitNOFILE of systemd)"
        );
    }
    usize::try_from(connections_within(files)).unwrap_or(usize::MAX)
}

/// Returns how many of so many descriptors are for connections.
fn connections_within(files: u64) -> u64 {
    files.saturating_sub(RESERVED).max(files / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_left_for_everything_else() {
        assert_eq!(connections_within(65_536), 65_408);
        assert_eq!(connections_within(200), 100);
        assert_eq!(connections_within(0), 1);
    }
}
