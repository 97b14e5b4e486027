//! What the reports of several benchmarks share: the host, statistics, and the parts of HTML pages.

pub mod escape;
pub mod host_info;
pub mod stats;
pub mod svg;
