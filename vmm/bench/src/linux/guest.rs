//! One guest: started as `baton run` in a process of its own, which a guest that goes wrong cannot
//! take anything else down with, and read from its console.

use std::process::{Command, Stdio};

use super::LinuxBenchError;
use super::args::{LinuxArgs, Load, Policy};

/// A guest that has not come to its end by then is stopped: seconds, besides the works.
const PATIENCE: u32 = 60;
/// How many of its last lines a silent guest is quoted with.
const LAST_LINES: usize = 10;

/// What a guest did.
pub(super) enum Outcome {
    /// All works.
    Told(Vec<Figure>),
    /// Not all; the end of what it printed.
    Silent(String),
}

/// One work's figures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Figure {
    pub(super) work: String,
    /// Acquisitions, messages, wake-ups, files.
    pub(super) done: u64,
    /// In this time.
    pub(super) in_ns: u64,
    pub(super) max_wait_ns: Option<u64>,
    pub(super) median_wait_ns: Option<u64>,
}

impl Figure {
    pub(super) fn per_second(&self) -> u64 {
        crate::report::stats::per_second(self.done, self.in_ns)
    }

    /// Reads a line `... bench: WORK done N in_ns T [max_wait_ns W] [median_wait_ns M] ...`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_once("bench: ")?.1.split_whitespace();
        let work = words.next()?.to_owned();
        let (mut done, mut in_ns) = (None, None);
        let (mut max_wait_ns, mut median_wait_ns) = (None, None);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value = value.parse().ok();
            match name {
                "done" => done = value,
                "in_ns" => in_ns = value,
                "max_wait_ns" => max_wait_ns = value,
                "median_wait_ns" => median_wait_ns = value,
                _ => {}
            }
        }
        Some(Self {
            work,
            done: done?,
            in_ns: in_ns.filter(|ns| *ns > 0)?,
            max_wait_ns,
            median_wait_ns,
        })
    }
}

/// Boots one guest and waits for its end.
pub(super) fn run(
    args: &LinuxArgs,
    cpus: &[usize],
    load: Load,
    policy: Policy,
) -> Result<Outcome, LinuxBenchError> {
    let (kernel, sched) = match policy {
        Policy::Host => (&args.stock, "host"),
        Policy::Baton => (&args.stock, "baton"),
        Policy::BatonPatched => (&args.patched, "baton"),
    };
    let patience = PATIENCE + args.seconds * args.works.len() as u32;
    let cmdline = format!(
        "console=ttyS0 quiet panic=-1 baton.test=bench baton.works={} baton.seconds={}",
        args.works.join(","),
        args.seconds
    );
    let program = std::env::current_exe().map_err(LinuxBenchError::Start)?;
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
        .map_err(LinuxBenchError::Start)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<Figure> = text.lines().filter_map(Figure::parse).collect();
    let told = |work: &String| figures.iter().any(|figure| figure.work == *work);
    if args.works.iter().all(told) {
        return Ok(Outcome::Told(figures));
    }
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = all.lines().collect();
    let last = lines.len().saturating_sub(LAST_LINES);
    Ok(Outcome::Silent(lines[last..].join("\n")))
}
