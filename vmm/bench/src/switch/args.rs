//! The flags of `baton bench switch`.

use std::path::PathBuf;
use std::time::Duration;

use baton_config::values::{CpuList, parse_cpu_list};
use clap::Args;

/// Flags of `baton bench switch`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Make fewer and shorter runs, which takes some seconds
    #[arg(long)]
    pub quick: bool,
    /// Runs of each operation [default: 9, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// Host CPUs to use, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Write the results as JSON to this file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl SwitchArgs {
    /// The number of runs of each operation, and the length of one.
    pub(super) fn runs_and_time(&self) -> (u32, Duration) {
        let (runs, ms) = if self.quick { (3, 100) } else { (9, 300) };
        (self.runs.unwrap_or(runs), Duration::from_millis(ms))
    }
}
