//! The two halves of a vCPU, apart: the *scheduling context* claims CPU time, the *execution
//! context* is what runs. Usually the second runs on the first; under proxying a vCPU's claim
//! carries another vCPU's execution.

use crate::classes::cbs::Server;
use crate::classes::fair::FairShare;
use crate::classes::rank::Rank;
use crate::counters::Counters;
use crate::cpuset::CpuSet;
use crate::ids::{CpuId, GuestId, Ns, VcpuId, WorkerId};
use crate::state::blocked_on::Hints;

/// What a claim is measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SchedClass {
    Deadline(Server),
    Fair(FairShare),
}

/// Where a claim is. Each move is a method of `Scheduler`; no other state is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScState {
    /// It does not compete: its vCPU sleeps and carries no other.
    Off,
    /// It competes, in the queue of this domain.
    Queued(usize),
    /// It pays for what runs on this CPU: it is the donor.
    OnCpu(CpuId),
    /// It need not compete: its own vCPU runs already, on another vCPU's budget.
    Proxied,
    /// It waits for this vCPU to stop running, or to wake: see `proxy.rs`.
    Parked(VcpuId),
    /// Out of budget until the timer replenishes it.
    Throttled,
}

/// A claim on CPU time.
#[derive(Clone, Debug)]
pub(crate) struct SchedContext {
    pub(crate) class: SchedClass,
    pub(crate) state: ScState,
    /// Arrival number: breaks ties, and is kept as long as the deadline or tag is.
    pub(crate) fifo_seq: u64,
    /// Since when throttled, for the counter.
    pub(crate) throttled_since: Ns,
    /// The last deadline whose miss is known.
    pub(crate) missed: Ns,
    /// Since when less than promised is in force, ns.
    pub(crate) reduced_since: Option<Ns>,
}

impl SchedContext {
    pub(crate) const fn rank(&self) -> Rank {
        match &self.class {
            SchedClass::Deadline(server) => Rank::Deadline(server.deadline(), self.fifo_seq),
            SchedClass::Fair(fair) => Rank::Fair(fair.tag(), self.fifo_seq),
        }
    }
}

/// Where an execution context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecState {
    /// It has nothing to run until it is woken.
    Halted,
    /// It could run.
    Runnable { since: Ns },
    /// It runs.
    Running(CpuId),
    /// Its guest ended. Final.
    Gone,
}

/// What runs.
#[derive(Clone, Debug)]
pub(crate) struct ExecContext {
    pub(crate) state: ExecState,
    /// Where the user allows it to run, as a set and as the queue that serves exactly this set.
    pub(crate) allowed: CpuSet,
    pub(crate) domain: usize,
    /// Where it ran last: its caches are warm there.
    pub(crate) last_cpu: CpuId,
    /// Of the wait that goes on, how long its claim was throttled in throttlings that are over, ns.
    pub(crate) throttled: Ns,
    /// A wake-up that came while it was not halted; the next halt returns at once.
    pub(crate) wake_pending: bool,
    /// To be removed when it stops.
    pub(crate) ending: bool,
    /// What it said when it stopped last.
    pub(crate) hints: Hints,
    /// Deferrals denied before the next one is granted, and how many ran out in a row.
    pub(crate) deferral: crate::state::deferral_credit::Credit,
}

/// A vCPU: one claim, one execution.
#[derive(Clone, Debug)]
pub(crate) struct VcpuState {
    pub(crate) guest: GuestId,
    pub(crate) sc: SchedContext,
    pub(crate) ec: ExecContext,
    pub(crate) counters: Counters,
}

/// What a host CPU of the pool does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) running: Option<Running>,
    /// It was kicked and has not picked since.
    pub(crate) kicked: bool,
    /// It stopped and is about to pick: it counts as idle, and need not be kicked.
    pub(crate) choosing: bool,
    /// When it wakes up by itself while it sleeps, ns: the earliest timer when it picked last.
    pub(crate) sleeps_until: Option<Ns>,
    /// It was kicked for one that woke: the slice of what it runs ends.
    pub(crate) yields: bool,
    /// The worker that has a grant here, and since when, ns.
    pub(crate) worker: Option<(WorkerId, Ns)>,
    /// What it stopped for the pick that comes next, until that is done.
    pub(crate) stopped: Option<VcpuId>,
    /// What it ran last, and whether that held a lock if it was stopped against its will.
    pub(crate) left: Option<(VcpuId, Option<bool>)>,
}

/// A decision in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// Whose claim pays.
    pub(crate) donor: VcpuId,
    /// The vCPU that executes.
    pub(crate) curr: VcpuId,
    /// Since when, ns.
    pub(crate) since: Ns,
    /// When the policy wants the CPU back, ns; a deferral moves that for the executor alone.
    pub(crate) until: Option<Ns>,
    /// When its slice, if best effort pays, may be ended by one that wakes, ns.
    pub(crate) preemptible_at: Ns,
    /// The lock at the end of the chain that led from `donor` to `run`.
    pub(crate) lock: u64,
    /// The preemption of `run` was put off once already.
    pub(crate) deferred: bool,
}
