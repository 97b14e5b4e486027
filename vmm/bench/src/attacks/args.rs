//! The flags of `baton bench attacks`.

use std::path::PathBuf;
use std::time::Duration;

use baton_config::values::{CpuList, parse_cpu_list};
use clap::{Args, ValueEnum};

use super::attack::Attack;
use crate::flags::{distinct, parse_seconds};

/// Flags of `baton bench attacks`.
#[derive(Debug, Args)]
pub struct AttacksArgs {
    /// Make fewer and shorter runs, which takes less than a minute
    #[arg(long)]
    pub quick: bool,
    /// Attacks to measure [default: all]
    #[arg(long, value_name = "ATTACK,..", value_delimiter = ',')]
    pub attacks: Vec<Attack>,
    /// Runs beside each attacker, and as many beside an idle guest [default: 5, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// How long the victim computes in a run: seconds, or with a unit as in 500ms [default: 4, with
    /// --quick 1]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub seconds: Option<Duration>,
    /// Host CPUs to use, such as 0-1; the victim runs on the second [default: the first two that this
    /// process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Write the results as JSON to this file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl AttacksArgs {
    /// The attacks to measure, each once.
    pub(super) fn chosen(&self) -> Vec<Attack> {
        distinct(&self.attacks, Attack::value_variants())
    }

    /// The number of runs beside each attacker, and the time for which the victim computes in one.
    pub(super) fn runs_and_time(&self) -> (u32, Duration) {
        let (runs, seconds) = if self.quick { (2, 1) } else { (5, 4) };
        (
            self.runs.unwrap_or(runs),
            self.seconds.unwrap_or(Duration::from_secs(seconds)),
        )
    }
}
