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
    /// `None`: its process shows the guest that it is off its CPU.
    guest: Option<(Arc<Guest>, u32)>,
    reason: StopReason,
}

impl OffCpu {
    /// `vcpu` has stopped for `reason`.
    pub(super) fn new(vcpu: &OwnedVcpu, reason: StopReason) -> Self {
        let guest = match vcpu {
            OwnedVcpu::Local(vcpu) => Some((Arc::clone(&vcpu.guest), vcpu.index)),
            OwnedVcpu::Foreign(_) => None,
        };
        Self {
            id: vcpu.id(),
            guest,
            reason,
        }
    }

    /// Why it has stopped.
    pub(super) fn reason(&self) -> StopReason {
        self.reason
    }

    /// Shows the guest that the vCPU is off its CPU.
    fn show(&self) {
        let Some((guest, index)) = &self.guest else {
            return;
        };
        let has_work = !matches!(self.reason, StopReason::Halted(_) | StopReason::Ended);
        guest.hints.set_running(*index, false);
        guest.steal.set_preempted(*index, has_work);
        if self.reason == StopReason::Preempted {
            guest.hints.count_preemption(*index);
        }
    }
}

/// Shows guests which vCPU has left this CPU and which one is there now. True if the guest of the latter
/// has just been found to ring its doorbell for nothing, too often.
pub(super) fn show_switch(
    state: &mut PoolState,
    stopped: Option<&OffCpu>,
    picked: Option<&mut Assignment>,
    now: Ns,
) -> bool {
    let picked_id = picked.as_ref().map(|next| next.vcpu.id());
    let runs_on = |off: &OffCpu| picked_id == Some(off.id);
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
