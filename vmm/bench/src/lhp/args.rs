//! Flags of `baton bench lhp`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_config::units;
use baton_config::values::{CpuList, parse_cpu_list};
use baton_os::sys;
use clap::{Args, Subcommand, ValueEnum};

use super::matrix::{Load, Lock, Matrix, Policy};
use super::report::Plan;
use crate::BenchError;
use crate::attacks::AttacksArgs;
use crate::linux::LinuxArgs;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure lock-holder preemption: locks under overcommit, by Baton's policies and the host kernel's
    Lhp(LhpArgs),
    /// Measure the machine itself: doorbell, switch, kick, migration, halt and wake, preemption, proxy
    Switch(SwitchArgs),
    /// Measure Linux guests: stock and patched kernels under overcommit
    Linux(LinuxArgs),
    /// Measure what a victim with a reservation loses beside hostile guests
    Attacks(AttacksArgs),
}

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
    /// Runs of each operation, and how long one takes.
    pub(crate) fn extent(&self) -> (u32, Duration) {
        let (runs, ms) = if self.quick { (3, 100) } else { (9, 300) };
        (self.runs.unwrap_or(runs), Duration::from_millis(ms))
    }
}

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
    /// Policies to measure [default: all but baton-traced]
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

/// Shortest run: below, starting the guest is most of it.
const MIN_TIME: Duration = Duration::from_millis(10);
/// Longest run.
const MAX_TIME: Duration = Duration::from_secs(3600);
/// `--quick` leaves rounds out that would not end by then.
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

/// Reads `2`, `0.5` or `500ms`.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let time = match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => units::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if (MIN_TIME..=MAX_TIME).contains(&time) {
        Ok(time)
    } else {
        Err("must be 10ms to 60m".to_owned())
    }
}

/// Whether `path` means standard output.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

impl LhpArgs {
    /// What these flags ask for.
    ///
    /// # Errors
    /// If flags exclude each other, or the host does not tell its CPUs.
    pub fn plan(&self) -> Result<Plan, BenchError> {
        let on_stdout = |path: &Option<PathBuf>| path.as_deref().is_some_and(is_stdout);
        if on_stdout(&self.html) {
            return Err(BenchError::HtmlToStdout);
        }
        if on_stdout(&self.json) && on_stdout(&self.csv) {
            return Err(BenchError::TwoToStdout);
        }
        let host_cpus = match &self.host_cpus {
            Some(CpuList(cpus)) => cpus.clone(),
            None => sys::affinity().map_err(BenchError::Affinity)?,
        };
        let (locks, loads, policies) = if self.quick {
            (&QUICK_LOCKS[..], &QUICK_LOADS[..], &QUICK_POLICIES[..])
        } else {
            (
                Lock::value_variants(),
                Load::value_variants(),
                &Policy::DECIDING[..],
            )
        };
        let (runs, time) = if self.quick {
            (3, Duration::from_millis(250))
        } else {
            (5, Duration::from_secs(1))
        };
        Ok(Plan {
            matrix: Matrix {
                locks: chosen(&self.locks, locks),
                loads: chosen(&self.loads, loads),
                policies: chosen(&self.policies, policies),
            },
            runs: self.runs.unwrap_or(runs),
            time: self.seconds_per_run.unwrap_or(time),
            host_cpus,
            limit: self.quick.then_some(QUICK_LIMIT),
        })
    }
}

/// What the user named, each once, or else the default.
pub(crate) fn chosen<T: Copy + PartialEq>(named: &[T], default: &[T]) -> Vec<T> {
    let mut chosen = Vec::new();
    for value in if named.is_empty() { default } else { named } {
        if !chosen.contains(value) {
            chosen.push(*value);
        }
    }
    chosen
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
        assert_eq!(plan.cells().len(), 4 * 7 * 7);
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
    fn times_are_seconds_or_have_a_unit() {
        assert_eq!(parse_seconds("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("2"), Ok(Duration::from_secs(2)));
        for bad in ["1ms", "-1", "nan", "2h", "7200", ""] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
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
