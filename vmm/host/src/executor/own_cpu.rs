//! An executor's check that it is still on the host CPU that it was pinned to.

use baton_os::sys;
use vcpu_sched::CpuId;

use super::pins::PinEpoch;
use super::pool::Pool;

/// What an executor knows of the host CPU that it is pinned to.
#[derive(Debug, Default)]
pub(super) struct OwnCpu {
    /// The epoch in which the thread was last found elsewhere, and the watcher was woken.
    reported: Option<PinEpoch>,
}

impl OwnCpu {
    /// Checks whether the calling thread, the executor of `cpu`, is where it was pinned to. If not, the
    /// watcher finds out why.
    pub(super) fn check(&mut self, cpu: CpuId, pool: &Pool) {
        let host_cpu = pool.host_cpus()[cpu.index()];
        if sys::current_cpu() == host_cpu {
            return;
        }
        // Once in an epoch: while the last CPU of a pool is away, its executor stays elsewhere.
        let now = pool.pins.epoch();
        if self.reported.replace(now) != Some(now) {
            pool.usable_cpus.check_now();
        }
    }
}
