//! What guests are shown of a switch from one vCPU to another, in their hint pages and steal time records.

use std::sync::Arc;

use baton_machine::Guest;
use vcpu_sched::{Ns, StopReason, VcpuId};

use super::assignment::Assignment;
use super::owned_vcpu::OwnedVcpu;
use super::pool_state::PoolState;

/// A vCPU that has been put back, for the hint page of its guest.
pub(super) struct OffCpu {
    id: VcpuId,
    guest: Arc<Guest>,
    index: u32,
    reason: StopReason,
}

impl OffCpu {
    /// `vcpu` has stopped for `reason`.
    pub(super) fn new(vcpu: &OwnedVcpu, reason: StopReason) -> Self {
        Self {
            id: vcpu.id(),
            guest: Arc::clone(&vcpu.guest),
            index: vcpu.index,
            reason,
        }
    }

    /// Why it has stopped.
    pub(super) fn reason(&self) -> StopReason {
        self.reason
    }

    /// Shows the guest that the vCPU is off its CPU.
    fn show(&self) {
        let has_work = !matches!(self.reason, StopReason::Halted(_) | StopReason::Ended);
        self.guest.hints.set_running(self.index, false);
        self.guest.steal.set_preempted(self.index, has_work);
        if self.reason == StopReason::Preempted {
            self.guest.hints.count_preemption(self.index);
        }
    }
}

/// Shows guests which vCPU has left this CPU and which one is there now. True if the guest of the latter
/// has just been found to ring its doorbell for nothing, too often.
pub(super) fn show_switch(
    state: &mut PoolState,
    stopped: Option<&OffCpu>,
    picked: Option<&Assignment>,
    now: Ns,
) -> bool {
    let runs_on = |off: &OffCpu| picked.is_some_and(|next| next.vcpu.id() == off.id);
    // Under the lock, so that no other executor runs the vCPU before it is shown as stopped.
    if let Some(off) = stopped
        && !runs_on(off)
    {
        off.show();
    }
    let Some(next) = picked else { return false };
    next.show_running();
    let rang = |off: &OffCpu| off.reason == StopReason::Rang && runs_on(off);
    stopped.is_some_and(rang)
        && !next.is_proxied()
        && state.count_needless_doorbell(next.vcpu.ids().guest(), now)
}
