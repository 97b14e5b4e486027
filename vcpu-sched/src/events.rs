//! Every decision of the policy, as an event for a listener: counters, metrics, traces, tests, the simulator.

use crate::classes::reservation::Reservation;
use crate::ids::{CpuId, GuestId, Ns, VcpuId};

/// One decision or state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `cpu` runs `curr` on `donor`'s scheduling context; `chain` edges lead from one to the other.
    Pick {
        /// The host CPU.
        cpu: CpuId,
        /// The vCPU that is charged.
        donor: VcpuId,
        /// The vCPU that runs.
        curr: VcpuId,
        /// Edges between them; 0 when the donor runs itself.
        chain: u32,
    },
    /// `cpu` has nothing to run.
    Idle {
        /// The host CPU.
        cpu: CpuId,
    },
    /// `curr` left `cpu` after `ran` ns, which are charged to `donor`.
    Stop {
        /// The host CPU.
        cpu: CpuId,
        /// The vCPU that is charged.
        donor: VcpuId,
        /// The vCPU that ran.
        curr: VcpuId,
        /// For how long, ns.
        ran: Ns,
    },
    /// The vCPU has something to run.
    Wake(VcpuId),
    /// The vCPU has nothing to run.
    Halt(VcpuId),
    /// An edge of the `blocked_on` graph appeared.
    EdgeOn {
        /// The vCPU that waits.
        waiter: VcpuId,
        /// The vCPU that it waits for.
        holder: VcpuId,
        /// Whether the policy suspects `holder`; otherwise the guest has published the edge.
        is_suspicion: bool,
    },
    /// The waiter's edge is gone.
    EdgeOff(VcpuId),
    /// The scheduling context of `vcpu` waits for `on` to stop running or to wake.
    Park {
        /// The vCPU whose scheduling context waits.
        vcpu: VcpuId,
        /// The vCPU that it waits for.
        on: VcpuId,
    },
    /// The vCPU's scheduling context is out of budget until the time given, ns.
    Throttle(VcpuId, Ns),
    /// The vCPU's scheduling context has a new budget.
    Replenish(VcpuId),
    /// The vCPU's deadline passed with budget left.
    Miss(VcpuId),
    /// The preemption of `curr` on `cpu` is deferred until it releases its locks.
    Defer {
        /// The host CPU.
        cpu: CpuId,
        /// The holder.
        curr: VcpuId,
    },
    /// `cpu` should reschedule.
    Kick(CpuId),
    /// The CPU is offline from now on.
    CpuOffline(CpuId),
    /// The CPU is online again.
    CpuOnline(CpuId),
    /// The vCPU has this reservation from now on: less than was admitted, or all of it again.
    InForce(VcpuId, Reservation),
    /// The vCPU's admitted reservation is this one from now on.
    ReservationChanged(VcpuId, Reservation),
    /// The weight of the vCPU's guest is this one, from the vCPU's next slice on.
    WeightChanged(VcpuId, u32),
    /// The vCPU may run on other CPUs than before.
    AllowedChanged(VcpuId),
    /// The guest is paused from now on. Its vCPUs that run are stopped.
    Paused(GuestId),
    /// The guest is paused no longer.
    Resumed(GuestId),
    /// The guest is being removed. Its vCPUs that run are stopped.
    GuestRemoved(GuestId),
    /// The guest is forgotten: its name, and those of its vCPUs and workers, name others from now on.
    GuestReclaimed(GuestId),
}

/// A listener. The default, `()`, does nothing and costs nothing.
pub trait Events {
    /// Called with the policy's lock held: record and return.
    fn event(&mut self, at: Ns, event: Event);
}

impl Events for () {
    #[inline]
    fn event(&mut self, _at: Ns, _event: Event) {}
}

impl Events for Vec<(Ns, Event)> {
    fn event(&mut self, at: Ns, event: Event) {
        self.push((at, event));
    }
}
