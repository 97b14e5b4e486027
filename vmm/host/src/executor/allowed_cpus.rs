//! The host CPUs on which one vCPU may run, for the threads of the vCPU: they may change while it runs.

use std::sync::Arc;

use crate::sync::Mutex;

/// The host CPUs on which one vCPU may run, and its threads may sleep.
#[derive(Debug)]
pub(crate) struct AllowedCpus(Mutex<Arc<[usize]>>);

impl AllowedCpus {
    pub(crate) fn new(host_cpus: Vec<usize>) -> Self {
        Self(Mutex::new(host_cpus.into()))
    }

    pub(crate) fn get(&self) -> Arc<[usize]> {
        Arc::clone(&self.0.lock())
    }

    pub(crate) fn set(&self, host_cpus: Vec<usize>) {
        *self.0.lock() = host_cpus.into();
    }
}
