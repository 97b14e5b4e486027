//! A vCPU that joins the pool, and the threads that are started for it.

use std::sync::Arc;

use super::allowed_cpus::AllowedCpus;
use super::local_vcpu::VcpuThreads;

/// A vCPU that joins the pool.
pub(super) struct NewVcpu<'a> {
    /// Name of its guest.
    pub(super) guest_name: &'a str,
    /// Its index in the guest.
    pub(super) index: u32,
    /// The host CPUs on which it may run, and its thread may sleep.
    pub(super) host_cpus: &'a Arc<AllowedCpus>,
}

impl NewVcpu<'_> {
    /// The name of a thread of the vCPU that begins with `kind`. Linux shows 15 characters.
    pub(super) fn thread_name(&self, kind: &str) -> String {
        let name = format!("{kind}{}:{}", self.index, self.guest_name);
        name.chars().take(15).collect()
    }
}

/// The threads that were started for a vCPU.
pub(super) struct StartedThreads {
    /// The ways to them, which do not own them.
    pub(super) ways: Arc<dyn VcpuThreads>,
    /// They end when this is dropped.
    pub(super) owner: Box<dyn Send>,
    /// Whether halts end a run there, if they run the vCPU.
    pub(super) detect_halts: bool,
}
