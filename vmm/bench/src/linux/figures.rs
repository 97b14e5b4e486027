//! The results that a guest prints.

use clap::ValueEnum;
use serde::Serialize;

use super::axes::Work;
use crate::report::stats::per_second;

/// For how long, ns, a thread of lockbench has a lock, and for how long it then works without it, by default.
const HELD_NS: u64 = 2_000;
const NOT_HELD_NS: u64 = 2_000;
/// The guest measures at its start how long its loops take. They may be shorter than that by this part.
const TOLERANCE: u64 = 10;

/// The results of one work in one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct WorkFigures {
    pub(super) work: Work,
    /// Number of acquisitions, unmaps, messages, wake-ups or files.
    pub(super) done: u64,
    /// The time that they took, nanoseconds.
    pub(super) in_ns: u64,
    pub(super) max_wait_ns: Option<u64>,
    pub(super) median_wait_ns: Option<u64>,
}

impl WorkFigures {
    pub(super) fn per_second(&self) -> u64 {
        per_second(self.done, self.in_ns)
    }

    /// Whether `host_cpus` CPUs can do so much. Lock works do more than that if the guest, at its start, found its
    /// loops to take longer than they do.
    pub(super) fn are_possible(&self, host_cpus: usize) -> bool {
        let each = NOT_HELD_NS + HELD_NS;
        match self.work {
            Work::Spin | Work::Mutex | Work::Rwsem | Work::RwsemMixed | Work::Rtmutex => {
                let most = (self.in_ns / each).saturating_mul(host_cpus as u64);
                self.done <= most.saturating_add(most / TOLERANCE)
            }
            Work::Munmap | Work::Messaging | Work::Wake | Work::Compile => true,
        }
    }

    /// Parses a line `... bench: WORK done N in_ns T [max_wait_ns W] [median_wait_ns M] ...`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_once("bench: ")?.1.split_whitespace();
        let work = Work::from_str(words.next()?, false).ok()?;
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

/// The release of the guest's kernel, from a line `... guest: RELEASE, N CPUs, test bench`.
pub(super) fn parse_release(line: &str) -> Option<&str> {
    let (release, rest) = line.split_once("guest: ")?.1.split_once(", ")?;
    rest.contains(" CPUs, test ").then_some(release)
}
