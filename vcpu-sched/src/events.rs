//! Every decision of the policy, as an event for a listener: metrics, traces, tests, the simulator.

use crate::classes::reservation::Reservation;
use crate::ids::{CpuId, Ns, VcpuId};

/// One decision or state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `cpu` runs `run` on `donor`'s budget; `chain` edges lead from one to the other.
    Pick {
        /// The host CPU.
        cpu: CpuId,
        /// The vCPU whose budget pays.
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
    /// `run` left `cpu` after `ran` ns, charged to `donor`.
    Stop {
        /// The host CPU.
        cpu: CpuId,
        /// The vCPU whose budget paid.
        donor: VcpuId,
        /// The vCPU that ran.
        curr: VcpuId,
        /// How long, ns.
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
    },
    /// The waiter's edge is gone.
    EdgeOff(VcpuId),
    /// The claim waits for `on` to stop running or to wake.
    Park {
        /// The vCPU whose claim waits.
        vcpu: VcpuId,
        /// The vCPU that it waits for.
        on: VcpuId,
    },
    /// The claim is out of budget until the time given, ns.
    Throttle(VcpuId, Ns),
    /// The claim has a new budget.
    Replenish(VcpuId),
    /// The claim's deadline passed with budget left.
    Miss(VcpuId),
    /// The preemption of `run` on `cpu` waits for it to release its locks.
    Defer {
        /// The host CPU.
        cpu: CpuId,
        /// The holder.
        curr: VcpuId,
    },
    /// `cpu` should look again at what it runs.
    Kick(CpuId),
    /// `cpu` is away from now on.
    CpuOffline(CpuId),
    /// `cpu` is there again.
    CpuOnline(CpuId),
    /// The claim has this reservation from now on: less than it was promised, or all of it again.
    InForce(VcpuId, Reservation),
}

/// A listener. The default hears nothing and costs nothing.
pub trait Events {
    /// Called with the policy's lock held: record and return.
    fn event(&mut self, at: Ns, event: Event);
}

impl Events for () {
    fn event(&mut self, _at: Ns, _event: Event) {}
}

impl Events for Vec<(Ns, Event)> {
    fn event(&mut self, at: Ns, event: Event) {
        self.push((at, event));
    }
}
