//! How many files the process may open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::BenchError;

/// Files the process has open besides its connections.
const OTHERS: u64 = 64;

/// Raises the limit so that so many connections can be open.
pub(super) fn allow(connections: usize) -> Result<(), BenchError> {
    let needed = connections as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if is_enough(limit.current) {
        return Ok(());
    }
    // Only root may raise the upper limit too.
    let maximum = if is_enough(limit.maximum) { limit.maximum } else { Some(needed) };
    let raised = Rlimit { current: Some(needed), maximum };
    setrlimit(Resource::Nofile, raised).map_err(|_| {
        let allowed = limit.maximum.or(limit.current).unwrap_or_default();
        BenchError::TooManyFiles { needed, allowed }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_system_allows_is_refused_with_both_numbers() {
        assert!(allow(1).is_ok());
        let text = allow(usize::MAX >> 2).unwrap_err().to_string();
        assert!(text.contains(&((usize::MAX as u64 >> 2) + OTHERS).to_string()), "{text}");
    }
}
