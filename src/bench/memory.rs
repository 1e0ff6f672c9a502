//! The memory of the server, as it tells of itself.

use std::time::Duration;

use super::connection::Connection;
use super::endpoint::Endpoint;

/// Returns the resident memory in bytes that `GET /metrics` shows, if it does.
pub(super) async fn resident_bytes(endpoint: &Endpoint, timeout: Duration) -> Option<u64> {
    let mut connection = Connection::open(endpoint, timeout).await.ok()?;
    let request = endpoint.request("GET", "/metrics", None);
    let reply = connection.exchange(&request).await.ok()?;
    if !reply.is_success() {
        return None;
    }
    resident(std::str::from_utf8(reply.body).ok()?)
}

fn resident(metrics: &str) -> Option<u64> {
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix("process_resident_memory_bytes "))?;
    // A server that cannot tell shows 0.
    value.trim().parse().ok().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::resident;

    #[test]
    fn the_sample_is_found_among_others() {
        let text =
            "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 4096\nx 1\n";
        assert_eq!(resident(text), Some(4_096));
        assert_eq!(resident("process_resident_memory_bytes 0\n"), None);
        assert_eq!(resident("x 1\n"), None);
    }
}
