//! What a best-effort guest that leaves has had before the others, and the next guest of its user owes.
//!
//! A guest that has just had its slice is ahead of the others, and has to wait until they have had theirs. If it could
//! leave and join again without that, it would have slice after slice.
//!
//! Source: a flow that comes back starts at its last finish tag if that is later than virtual time; Goyal, Vin, Cheng,
//! "Start-time Fair Queueing" (SIGCOMM 1996).

use crate::events::Events;
use crate::ids::{Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::ScState;

/// No guest owes more than this, ns.
const MAX_LEAD: Ns = 1_000_000_000;

impl<E: Events> Scheduler<E> {
    /// CPU time by which `vcpu`, or the guest whose weight it shares, is ahead of the others, ns; 0 if it has a
    /// reservation. Also that of a vCPU that has been removed, until its guest is reclaimed.
    #[must_use]
    pub fn lead(&self, vcpu: VcpuId) -> Ns {
        let Some(v) = self.vcpus.get(vcpu) else {
            return 0;
        };
        let virtual_time = self.domains[v.ec.domain].virtual_time;
        v.sc.class.lead(virtual_time).min(MAX_LEAD)
    }

    /// `vcpu`, which has not run yet, starts ahead of the others by `lead` ns, as one that has just had so much. Does
    /// nothing for a vCPU that does not exist or has a reservation.
    pub fn owe(&mut self, vcpu: VcpuId, lead: Ns) {
        let Some(v) = self.vcpus.get(vcpu).filter(|v| v.sc.state == ScState::Off) else {
            return;
        };
        let virtual_time = self.domains[v.ec.domain].virtual_time;
        let class = &mut self.vcpus[vcpu].sc.class;
        class.owe(lead.min(MAX_LEAD), virtual_time);
    }
}
