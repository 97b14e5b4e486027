//! Which host CPUs of the pool can be used now, and how an executor has that checked.

use std::sync::OnceLock;
use std::thread::Thread;

use crate::sync::Mutex;

/// The host CPUs that cannot be used, as the watcher (`host_cpu_watcher.rs`) found them.
#[derive(Debug, Default)]
pub(crate) struct UsableCpus {
    watcher: OnceLock<Thread>,
    /// Host CPUs that cannot be used.
    away: Mutex<Vec<usize>>,
    /// Host CPUs for which the pool has a place, and which it does not have.
    spare: Mutex<Vec<usize>>,
}

impl UsableCpus {
    /// `watcher` checks from now on. There is one for a pool.
    pub(super) fn set_watcher(&self, watcher: &Thread) {
        // A second one would be a bug of this program; the first stays.
        let _ = self.watcher.set(watcher.clone());
    }

    /// Makes the watcher check now.
    pub(super) fn check_now(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// The host CPUs `away` cannot be used, all others can.
    pub(super) fn set_away(&self, away: Vec<usize>) {
        *self.away.lock() = away;
    }

    /// The pool has places for the host CPUs `spare`, and does not have them.
    pub(super) fn set_spare(&self, spare: &[usize]) {
        *self.spare.lock() = spare.to_vec();
    }

    /// The pool has `host_cpu` from now on, or no more.
    pub(super) fn set_member(&self, host_cpu: usize, is_member: bool) {
        let mut spare = self.spare.lock();
        spare.retain(|&cpu| cpu != host_cpu);
        if !is_member {
            spare.push(host_cpu);
        }
        drop(spare);
        self.away.lock().retain(|&cpu| cpu != host_cpu);
        self.check_now();
    }

    /// Whether `host_cpu` cannot be used. If it is the last one of the pool, its executor runs elsewhere.
    pub(super) fn is_away(&self, host_cpu: usize) -> bool {
        self.away.lock().contains(&host_cpu)
    }

    /// Those of `host_cpus` that are the pool's and can be used; all that are the pool's if none can.
    pub(super) fn usable(&self, host_cpus: &[usize]) -> Vec<usize> {
        let spare = self.spare.lock().clone();
        let members = host_cpus.iter().copied().filter(|cpu| !spare.contains(cpu));
        let members: Vec<usize> = members.collect();
        let away = self.away.lock();
        let usable = members.iter().copied().filter(|cpu| !away.contains(cpu));
        let usable: Vec<usize> = usable.collect();
        match usable.is_empty() {
            true => members,
            false => usable,
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_sleep_where_their_vcpu_may_run_unless_all_of_that_is_away() {
        let usable_cpus = UsableCpus::default();
        usable_cpus.set_away(vec![1, 3]);
        assert_eq!(usable_cpus.usable(&[0, 1, 2, 3]), [0, 2]);
        assert_eq!(usable_cpus.usable(&[1, 3]), [1, 3]);
        usable_cpus.set_spare(&[2, 3]);
        assert_eq!(usable_cpus.usable(&[0, 1, 2, 3]), [0]);
        assert_eq!(usable_cpus.usable(&[1, 3]), [1]);
        usable_cpus.set_member(3, true);
        assert_eq!(usable_cpus.usable(&[0, 1, 2, 3]), [0, 3]);
    }
}
