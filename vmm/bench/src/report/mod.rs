//! What the reports of several benchmarks share: statistics, and the parts of HTML pages.

pub mod escape;
pub mod stats;
pub mod svg;
