//! Affinities of tasks that differ from those of the root cpuset. When a task gets other host CPUs, by a move to
//! another cpuset or by a partition, the kernel replaces its affinity. Only since Linux 6.2 does it remember what the
//! task requested itself, and it never remembers what it chose for a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::cpu_list;
use super::error::IsolationError;
use super::host::Host;

/// Affinities by task, with the time at which the task began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Affinities(BTreeMap<i32, (u64, Vec<usize>)>);

impl Affinities {
    pub(super) fn add(&mut self, task: i32, begin: u64, cpus: Vec<usize>) {
        self.0.insert(task, (begin, cpus));
    }

    /// Notes the affinity of `task`, unless it is that of its cpuset, which has the host CPUs `all`.
    pub(super) fn note(&mut self, host: &impl Host, task: i32, all: &[usize]) {
        // A task that has ended meanwhile has none.
        if let (Some(begin), Ok(cpus)) = (host.begin_of(task), host.affinity(task))
            && cpus != all
        {
            self.add(task, begin, cpus);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, u64, &[usize])> {
        let all = self.0.iter();
        all.map(|(&task, (begin, cpus))| (task, *begin, cpus.as_slice()))
    }

    /// Gives `task`, which was moved to a cpuset with the host CPUs `now`, as much of its affinity as there is.
    pub(super) fn keep_within(&self, host: &impl Host, task: i32, now: &[usize]) {
        if let Some((begin, cpus)) = self.0.get(&task) {
            let kept = cpu_list::within(cpus, now);
            let lost = host.affinity(task).is_ok_and(|affinity| affinity != kept);
            if !kept.is_empty() && lost && host.begin_of(task) == Some(*begin) {
                // The task may have ended. A task that loses its affinity for a while runs all the same.
                let _ = host.set_affinity(task, &kept);
            }
        }
    }

    /// Gives each task its affinity back where the kernel has replaced it by that of its cpuset, `all`, or
    /// [`Self::keep_within`] by the part that was in `now`. A task that has requested another one meanwhile keeps
    /// that.
    ///
    /// # Errors
    /// The host's first reason, if it refuses that for some of them.
    pub(super) fn give_back(
        &self,
        host: &impl Host,
        now: &[usize],
        all: &[usize],
    ) -> Result<(), IsolationError> {
        let mut first_failure = Ok(());
        for (task, begin, cpus) in self.iter() {
            let kept = cpu_list::within(cpus, now);
            let replaced = host
                .affinity(task)
                .is_ok_and(|affinity| affinity != cpus && (affinity == all || affinity == kept));
            if replaced && host.begin_of(task) == Some(begin) {
                let set = set_affinity(host, task, cpus);
                first_failure = first_failure.and(set);
            }
        }
        first_failure
    }
}

fn set_affinity(host: &impl Host, task: i32, cpus: &[usize]) -> Result<(), IsolationError> {
    let set = host.set_affinity(task, cpus);
    match set.as_ref().map_err(io::Error::raw_os_error) {
        // It has ended, or somebody has moved it to another cpuset meanwhile.
        Err(Some(libc::ESRCH | libc::EINVAL)) => Ok(()),
        _ => {
            let path = format!("/proc/{task}");
            set.map_err(IsolationError::host("pinning", Path::new(&path)))
        }
    }
}
