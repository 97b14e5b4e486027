//! What the reports of several benchmarks share.

pub mod stats;
pub mod svg;
