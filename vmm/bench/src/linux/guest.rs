//! One guest, started as `baton run` in a process of its own, so that a guest that fails affects nothing
//! else. Its results are read from its console.

use std::process::{Command, Stdio};

use super::args::LinuxArgs;
use super::axes::{LinuxLoad, LinuxPolicy, Work};
use super::figures::WorkFigures;
use crate::error::BenchError;

/// Seconds after which a guest that has not ended is stopped, besides the time of its works.
const PATIENCE: u32 = 60;
/// Number of lines, from the end of its output, with which a guest without results is quoted.
const LAST_LINES: usize = 10;

/// The output of a guest.
pub(super) enum GuestOutput {
    /// The results of all works.
    Complete(Vec<WorkFigures>),
    /// Results are missing; the end of what the guest printed.
    Incomplete(String),
}

/// Boots one guest and waits for its end.
pub(super) fn run(
    args: &LinuxArgs,
    cpus: &[usize],
    load: LinuxLoad,
    policy: LinuxPolicy,
) -> Result<GuestOutput, BenchError> {
    let (kernel, sched) = match policy {
        LinuxPolicy::Host => (&args.stock, "host"),
        LinuxPolicy::Baton => (&args.stock, "baton"),
        LinuxPolicy::BatonPatched => (&args.patched, "baton"),
    };
    let patience = PATIENCE + args.seconds * args.works.len() as u32;
    let works: Vec<String> = args.works.iter().map(ToString::to_string).collect();
    let cmdline = format!(
        "console=ttyS0 quiet panic=-1 baton.test=bench baton.works={} baton.seconds={}",
        works.join(","),
        args.seconds
    );
    let program = std::env::current_exe().map_err(BenchError::Start)?;
    let output = Command::new(program)
        .args(["run", "--memory", "512M", "--control", "off"])
        .arg("--kernel")
        .arg(kernel)
        .arg("--initrd")
        .arg(&args.initrd)
        .args(["--cpus", &load.vcpus(cpus.len()).to_string()])
        .args(["--host-cpus", &baton_config::units::format_cpus(cpus)])
        .args(["--sched", sched, "--cmdline", &cmdline])
        .args(["--duration", &format!("{patience}s")])
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::Start)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<WorkFigures> = text.lines().filter_map(WorkFigures::parse).collect();
    let has_result = |work: &Work| figures.iter().any(|figure| figure.work == *work);
    if args.works.iter().all(has_result) {
        return Ok(GuestOutput::Complete(figures));
    }
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = all.lines().collect();
    let last = lines.len().saturating_sub(LAST_LINES);
    Ok(GuestOutput::Incomplete(lines[last..].join("\n")))
}
