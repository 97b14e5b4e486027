//! One guest, started as `baton run` in a process of its own, so that a guest that fails affects nothing
//! else. Its results are read from its console.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::args::LinuxArgs;
use super::axes::Work;
use super::figures::{WorkFigures, parse_release};
use super::kernels::NamedKernel;
use super::plan::LinuxCell;
use crate::error::BenchError;

/// Seconds after which a guest that has not ended is stopped, besides the time of its works.
const PATIENCE: u32 = 60;
/// Number of lines, from the end of its output, with which a guest without results is quoted.
const LAST_LINES: usize = 10;

/// The results of all works of one guest.
#[derive(Debug, Default)]
pub(super) struct GuestResults {
    pub(super) figures: Vec<WorkFigures>,
    /// Release of its kernel.
    pub(super) release: Option<String>,
    /// What `baton run --summary json` reports of the guest.
    pub(super) summary: Value,
}

impl GuestResults {
    /// Whether there is a result of each of `works`, and `host_cpus` CPUs can have done all that.
    pub(super) fn are_good(&self, works: &[Work], host_cpus: usize) -> bool {
        let has_result = |work: &Work| self.figures.iter().any(|figure| figure.work == *work);
        let are_possible = |figures: &WorkFigures| figures.are_possible(host_cpus);
        works.iter().all(has_result) && self.figures.iter().all(are_possible)
    }
}

/// The output of a guest.
pub(super) enum GuestOutput {
    /// The results of all works.
    Complete(GuestResults),
    /// Results are missing or impossible; the end of what the guest printed.
    Incomplete(String),
}

/// Boots one guest and waits for its end.
pub(super) fn run(
    args: &LinuxArgs,
    cpus: &[usize],
    kernel: &NamedKernel,
    cell: &LinuxCell,
) -> Result<GuestOutput, BenchError> {
    let patience = PATIENCE + args.seconds * args.works.len() as u32;
    let program = std::env::current_exe().map_err(BenchError::Start)?;
    let output = Command::new(program)
        .args(["run", "--memory", "512M", "--control", "off"])
        .arg("--kernel")
        .arg(&kernel.file)
        .arg("--initrd")
        .arg(&args.initrd)
        .args(["--cpus", &cell.load.vcpus(cpus.len()).to_string()])
        .args(["--host-cpus", &baton_config::units::format_cpus(cpus)])
        .args(["--sched", cell.policy.sched()])
        .args(["--hints", cell.policy.hints()])
        .args(["--cmdline", &cmdline(args)])
        .args(["--duration", &format!("{patience}s"), "--summary", "json"])
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::Start)?;
    // With a summary in JSON on standard output, what the guest prints goes to standard error.
    let text = String::from_utf8_lossy(&output.stderr);
    let results = GuestResults {
        figures: text.lines().filter_map(WorkFigures::parse).collect(),
        release: text.lines().find_map(parse_release).map(str::to_owned),
        summary: summary(&output.stdout),
    };
    if results.are_good(&args.works, cpus.len()) {
        return Ok(GuestOutput::Complete(results));
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(LAST_LINES);
    Ok(GuestOutput::Incomplete(lines[last..].join("\n")))
}

fn cmdline(args: &LinuxArgs) -> String {
    let works: Vec<String> = args.works.iter().map(ToString::to_string).collect();
    format!(
        "console=ttyS0 quiet panic=-1 baton.test=bench baton.works={} baton.seconds={} {}",
        works.join(","),
        args.seconds,
        args.cmdline
    )
}

/// The guest in the summary of its run; null if there is no summary.
fn summary(json: &[u8]) -> Value {
    let mut run: Value = serde_json::from_slice(json).unwrap_or_default();
    run.pointer_mut("/guests/0")
        .map(Value::take)
        .unwrap_or_default()
}
