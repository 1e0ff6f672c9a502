//! The process itself.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry;

#[derive(Debug)]
pub(super) struct ProcessMetrics {
    resident: Gauge,
    dropped_log_lines: Counter,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let resident = Gauge::default();
        registry.register_with_unit(
            "process_resident_memory",
            "Memory the process holds; 0 where the system does not tell",
            Unit::Bytes,
            resident.clone(),
        );
        let dropped_log_lines = Counter::default();
        registry.register(
            "taskcast_log_lines_dropped",
            "Log lines dropped because standard error was not read fast enough",
            dropped_log_lines.clone(),
        );
        Self { resident, dropped_log_lines }
    }

    /// Looks how much memory the process holds, and what its log lost.
    pub(super) fn look(&self) {
        // The process counts them, whichever of its services is asked.
        self.dropped_log_lines.inner().store(telemetry::dropped_lines(), Ordering::Relaxed);
        // A file of the kernel, answered from memory.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.resident.set(resident_bytes(&status).unwrap_or(0));
    }
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::resident_bytes;

    #[test]
    fn the_resident_size_is_read_from_the_kernels_words() {
        let status = "Name:\tx\nVmRSS:\t  123456 kB\nThreads:\t1\n";
        assert_eq!(resident_bytes(status), Some(123_456 * 1024));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
