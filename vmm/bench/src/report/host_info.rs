//! The host on which a benchmark ran.

use serde::Serialize;

/// The host on which it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HostInfo {
    /// Release of the host kernel.
    pub kernel: String,
    /// Name of the processor.
    pub processor: String,
}

impl HostInfo {
    /// Reads it from `/proc`; what cannot be read is empty.
    pub(crate) fn read() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let processor = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .and_then(|rest| rest.split_once(':'))
            .map_or("", |(_, name)| name.trim());
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.to_owned(),
        }
    }
}
