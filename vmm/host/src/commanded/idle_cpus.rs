//! On which host CPUs a vCPU's thread may be while it does not run the vCPU by command.
//!
//! Where vCPUs that run by command have a priority, an ordinary thread may not get a CPU of the pool for a second. A
//! thread whose vCPU sleeps has to run for a moment when the vCPU wakes, so it is kept off these host CPUs.

use std::sync::Arc;

use crate::sync::Mutex;

/// The host CPUs of the pool on which vCPUs have a priority; none if they have none, or there is no pool.
#[derive(Clone, Debug, Default)]
pub(super) struct CpusWithPriority(Arc<Mutex<Vec<usize>>>);

impl CpusWithPriority {
    pub(super) fn set(&self, cpus: Vec<usize>) {
        *self.0.lock() = cpus;
    }
}

/// The host CPUs for one thread.
#[derive(Debug)]
pub(super) struct IdleCpus {
    /// Those on which its vCPU may run.
    of_vcpu: Vec<usize>,
    /// All that its process may use.
    all: Vec<usize>,
    with_priority: CpusWithPriority,
}

impl IdleCpus {
    pub(super) fn new(
        of_vcpu: Vec<usize>,
        all: Vec<usize>,
        with_priority: CpusWithPriority,
    ) -> Self {
        Self {
            of_vcpu,
            all,
            with_priority,
        }
    }

    /// For a thread that runs its vCPU without a pool.
    pub(super) fn alone(&self) -> &[usize] {
        &self.of_vcpu
    }

    /// Whether vCPUs have a priority on host CPUs of the pool, so that this thread could not wake there beside one.
    pub(super) fn has_priority(&self) -> bool {
        !self.with_priority.0.lock().is_empty()
    }

    /// For a thread whose vCPU sleeps.
    pub(super) fn asleep(&self) -> Vec<usize> {
        let with_priority = self.with_priority.0.lock();
        if with_priority.is_empty() {
            return self.of_vcpu.clone();
        }
        let others = self.all.iter().filter(|cpu| !with_priority.contains(cpu));
        let others: Vec<usize> = others.copied().collect();
        match others.is_empty() {
            true => self.of_vcpu.clone(),
            false => others,
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_whose_vcpu_sleeps_is_kept_off_the_cpus_with_a_priority_if_it_may_use_others() {
        let with_priority = CpusWithPriority::default();
        let cpus = IdleCpus::new(vec![1], vec![0, 1, 2], with_priority.clone());
        assert_eq!(cpus.asleep(), [1]);
        with_priority.set(vec![1, 2]);
        assert_eq!(cpus.asleep(), [0]);
        assert_eq!(cpus.alone(), [1]);
        with_priority.set(vec![0, 1, 2]);
        assert_eq!(cpus.asleep(), [1]);
    }
}
