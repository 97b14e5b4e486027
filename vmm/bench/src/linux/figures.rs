//! The results that a guest prints.

use clap::ValueEnum;
use serde::Serialize;

use super::axes::Work;
use crate::report::stats::per_second;

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
