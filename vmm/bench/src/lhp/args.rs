//! The flags of `baton bench lhp`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_config::values::{CpuList, parse_cpu_list};
use clap::{Args, ValueEnum};

use super::axes::{Load, Lock, Policy};
use super::matrix::Matrix;
use super::plan::Plan;
use crate::error::BenchError;
use crate::flags::{distinct, host_cpus, is_stdout, parse_seconds};

/// Flags of `baton bench lhp`.
#[derive(Debug, Args)]
pub struct LhpArgs {
    /// Measure a choice of cells in shorter runs, which takes less than a minute
    #[arg(long)]
    pub quick: bool,
    /// Locks to measure [default: all]
    #[arg(long, value_name = "LOCK,..", value_delimiter = ',')]
    pub locks: Vec<Lock>,
    /// Loads to measure [default: all]
    #[arg(long, value_name = "LOAD,..", value_delimiter = ',')]
    pub loads: Vec<Load>,
    /// Policies to measure [default: all but baton-inferred-any, baton-threads, baton-pool, baton-traced and round-robin; with --quick also without
    /// baton-inferred, baton-defer and baton-proxy]
    #[arg(long, value_name = "POLICY,..", value_delimiter = ',')]
    pub policies: Vec<Policy>,
    /// Runs of each cell [default: 5, with --quick up to 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// How long vCPUs contend in a run: seconds, or with a unit as in 500ms [default: 1, with
    /// --quick 250ms]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub seconds_per_run: Option<Duration>,
    /// Host CPUs to use, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Write the results as JSON to this file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results as CSV to this file, or - for standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a report with plots to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Rounds of `--quick` that would not end within this time are left out.
const QUICK_LIMIT: Duration = Duration::from_secs(55);
const QUICK_LOCKS: [Lock; 3] = [Lock::Tas, Lock::Ticket, Lock::Mcs];
const QUICK_LOADS: [Load; 3] = [Load::X1, Load::X4, Load::Hog];
const QUICK_POLICIES: [Policy; 5] = [
    Policy::HostSpin,
    Policy::HostPv,
    Policy::HostDeadline,
    Policy::BatonNoHints,
    Policy::Baton,
];

impl LhpArgs {
    /// The plan that these flags describe.
    ///
    /// # Errors
    /// If flags exclude each other, or the CPUs of this process cannot be read.
    pub fn plan(&self) -> Result<Plan, BenchError> {
        self.check_outputs()?;
        let (runs, time) = if self.quick {
            (3, Duration::from_millis(250))
        } else {
            (5, Duration::from_secs(1))
        };
        Ok(Plan {
            matrix: self.matrix(),
            runs: self.runs.unwrap_or(runs),
            time: self.seconds_per_run.unwrap_or(time),
            host_cpus: host_cpus(self.host_cpus.as_ref())?,
            limit: self.quick.then_some(QUICK_LIMIT),
        })
    }

    /// The paths of the outputs that are files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.json, &self.csv, &self.html]
            .into_iter()
            .filter_map(Option::as_deref)
            .filter(|path| !is_stdout(path))
    }

    fn check_outputs(&self) -> Result<(), BenchError> {
        let is_on_stdout = |path: &Option<PathBuf>| path.as_deref().is_some_and(is_stdout);
        if is_on_stdout(&self.html) {
            return Err(BenchError::HtmlToStdout);
        }
        if is_on_stdout(&self.json) && is_on_stdout(&self.csv) {
            return Err(BenchError::TwoToStdout);
        }
        Ok(())
    }

    fn matrix(&self) -> Matrix {
        let (locks, loads, policies) = if self.quick {
            (&QUICK_LOCKS[..], &QUICK_LOADS[..], &QUICK_POLICIES[..])
        } else {
            (
                Lock::value_variants(),
                Load::value_variants(),
                &Policy::DECIDING[..],
            )
        };
        Matrix {
            locks: distinct(&self.locks, locks),
            loads: distinct(&self.loads, loads),
            policies: distinct(&self.policies, policies),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: LhpArgs,
    }

    fn plan(args: &[&str]) -> Result<Plan, BenchError> {
        Line::try_parse_from(["lhp"].iter().chain(args))
            .expect("parses")
            .args
            .plan()
    }

    #[test]
    fn without_flags_everything_is_measured() {
        let plan = plan(&["--host-cpus", "0-1"]).expect("a plan");
        assert_eq!(plan.cells().len(), 4 * 7 * 8);
        assert_eq!((plan.runs, plan.time), (5, Duration::from_secs(1)));
        assert_eq!((plan.limit, plan.host_cpus), (None, vec![0, 1]));
    }

    #[test]
    fn quick_is_planned_for_less_than_a_minute() {
        let plan = plan(&["--quick"]).expect("a plan");
        let runs = plan.cells().len() as u32 * plan.runs;
        assert!(plan.time * runs < Duration::from_secs(45));
        assert_eq!(plan.limit, Some(QUICK_LIMIT));
    }

    #[test]
    fn flags_narrow_every_axis() {
        let plan = plan(&[
            "--quick",
            "--locks",
            "mcs,tas,mcs",
            "--loads",
            "8x,two-guests",
            "--policies",
            "baton-defer",
            "--runs",
            "7",
            "--seconds-per-run",
            "0.5",
        ])
        .expect("a plan");
        assert_eq!(plan.matrix.locks, [Lock::Mcs, Lock::Tas]);
        assert_eq!(plan.matrix.loads, [Load::X8, Load::TwoGuests]);
        assert_eq!(plan.matrix.policies, [Policy::BatonDefer]);
        assert_eq!((plan.runs, plan.time), (7, Duration::from_millis(500)));
        assert_eq!(plan.cells().len(), 4 + 2);
    }

    #[test]
    fn only_one_thing_goes_to_standard_output() {
        assert!(matches!(
            plan(&["--json", "-", "--csv", "-"]),
            Err(BenchError::TwoToStdout)
        ));
        assert!(matches!(
            plan(&["--html", "-"]),
            Err(BenchError::HtmlToStdout)
        ));
    }
}
