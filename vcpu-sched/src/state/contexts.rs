//! The two halves of a vCPU, apart: the *scheduling context* (SC) competes for CPU time and is charged
//! for it, and the *execution context* is what runs. Usually the second runs on the first. With proxying
//! a vCPU's scheduling context can carry another vCPU's execution.

use crate::classes::delivery::Delivery;
use crate::classes::rank::Rank;
use crate::classes::reservation::SchedParams;
use crate::classes::sched_class::SchedClass;
use crate::cpuset::CpuSet;
use crate::ids::{CpuId, DomainId, GuestId, Ns, VcpuId};
use crate::normal_form::Writer;
use crate::state::blocked_on::Hints;
use crate::state::deferral_credit::DeferralCredit;
use crate::state::guess_credit::GuessCredit;
use crate::state::precedence::Precedence;

/// Where a scheduling context is. Each change is a method of `Scheduler`, and no other state is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScState {
    /// It does not compete: its vCPU sleeps and it carries no other.
    Off,
    /// It competes, in the queue of this domain.
    Queued(DomainId),
    /// It is charged for what runs on this CPU: it is the donor there.
    OnCpu(CpuId),
    /// It need not compete: its vCPU runs already, on another vCPU's scheduling context.
    Proxied,
    /// It waits for this vCPU to stop running, or to wake: see `rules/park.rs`.
    Parked(VcpuId),
    /// It is out of budget until its timer replenishes it.
    Throttled,
}

/// A vCPU's right to CPU time.
#[derive(Clone, Debug)]
pub(crate) struct SchedContext {
    pub(crate) class: SchedClass,
    pub(crate) state: ScState,
    /// Breaks ties, first come first served. It is kept for as long as the deadline or tag is.
    pub(crate) fifo_seq: u64,
    /// Since when it has been throttled, for the counter, ns.
    pub(crate) throttled_since: Ns,
    /// What is promised of its budget at hand.
    pub(crate) delivery: Delivery,
    /// Since when less than the admitted reservation has been in force, ns.
    pub(crate) reduced_since: Option<Ns>,
    /// The vCPU has given up a reservation. Until when it cannot begin with another one, ns (`rules/change.rs`).
    pub(crate) another_begins: Ns,
}

impl SchedContext {
    pub(crate) const fn rank(&self) -> Rank {
        self.class.rank(self.fifo_seq)
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
    /// It could run, but its guest is paused.
    Paused,
    /// Its guest has ended. Final.
    Gone,
}

/// What runs.
#[derive(Clone, Debug)]
pub(crate) struct ExecContext {
    pub(crate) state: ExecState,
    /// Where the user allows it to run, as a set and as the domain that serves exactly this set.
    pub(crate) allowed: CpuSet,
    pub(crate) domain: DomainId,
    /// Where it ran last: its caches are warm there. Before its first run, one of the allowed CPUs.
    pub(crate) last_cpu: CpuId,
    /// Of the wait under way: for how long its scheduling context was throttled, in throttlings that have
    /// ended, ns.
    pub(crate) throttled: Ns,
    /// A wake-up came while it was not halted: the next halt returns at once.
    pub(crate) wake_pending: bool,
    /// When it is to be woken, for a halted vCPU of a paused guest, ns.
    pub(crate) wake_at: Option<Ns>,
    /// It is to be removed when it stops.
    pub(crate) ending: bool,
    /// What it published when it last stopped.
    pub(crate) hints: Hints,
    /// It ran as a suspect, was stopped while it still held something, and has not been seen free since.
    pub(crate) wrongly_suspected: bool,
    /// It halted when it last stopped.
    pub(crate) has_halted: bool,
    /// Since it stopped, a suspect has released something on its budget.
    pub(crate) was_helped: bool,
    /// A vCPU that held nothing was suspected on its budget since it ran.
    pub(crate) has_tried_free: bool,
    /// Whether its next deferral is granted.
    pub(crate) deferral: DeferralCredit,
    /// The same of a deferral on a guess of the host.
    pub(crate) guessed_deferral: GuessCredit,
    /// Whether suspects of its guest run before it while it waits for none.
    pub(crate) precedence: Precedence,
}

/// What changes for a vCPU as soon as it is on no CPU: see `rules/change.rs`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PendingChange {
    /// Another class.
    pub(crate) params: Option<SchedParams>,
    /// Other CPUs, and the domain that serves them, of which the vCPU is a user already.
    pub(crate) pinning: Option<(CpuSet, DomainId)>,
}

impl PendingChange {
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.params.is_none() && self.pinning.is_none()
    }
}

/// A vCPU: one scheduling context, one execution context.
#[derive(Clone, Debug)]
pub(crate) struct VcpuState {
    pub(crate) guest: GuestId,
    pub(crate) sc: SchedContext,
    pub(crate) ec: ExecContext,
    pub(crate) pending: PendingChange,
}

impl VcpuState {
    /// A vCPU that has never been woken. `last_cpu` is one of the `allowed` CPUs, which `domain` serves.
    pub(crate) fn new(
        guest: GuestId,
        class: SchedClass,
        allowed: CpuSet,
        domain: DomainId,
        last_cpu: CpuId,
    ) -> Self {
        Self {
            guest,
            sc: SchedContext {
                class,
                state: ScState::Off,
                fifo_seq: 0,
                throttled_since: 0,
                delivery: Delivery::default(),
                reduced_since: None,
                another_begins: 0,
            },
            ec: ExecContext {
                state: ExecState::Halted,
                allowed,
                domain,
                last_cpu,
                throttled: 0,
                wake_pending: false,
                wake_at: None,
                ending: false,
                hints: Hints::default(),
                wrongly_suspected: false,
                has_halted: false,
                was_helped: false,
                has_tried_free: false,
                deferral: DeferralCredit::default(),
                guessed_deferral: GuessCredit::default(),
                precedence: Precedence::default(),
            },
            pending: PendingChange::default(),
        }
    }
}

impl ScState {
    /// Writes its normal form.
    fn normalise(self, to: &mut Writer) {
        match self {
            Self::Off => to.number(0_u8),
            Self::Queued(domain) => {
                to.number(1_u8);
                to.number(domain.0);
            }
            Self::OnCpu(cpu) => {
                to.number(2_u8);
                to.cpu(cpu);
            }
            Self::Proxied => to.number(3_u8),
            Self::Parked(on) => {
                to.number(4_u8);
                to.vcpu(on);
            }
            Self::Throttled => to.number(5_u8),
        }
    }
}

/// How a vCPU stands to the others of its pool, in place of numbers that only rise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Its place among those with which it competes.
    pub(crate) fifo: usize,
    /// Its place among those that could run, by how long they have waited.
    pub(crate) since: usize,
    /// What the host has taken from its CPUs, ns.
    pub(crate) host_taken: Ns,
}

impl SchedContext {
    fn normalise(&self, standing: &Standing, to: &mut Writer) {
        let Self {
            class,
            state,
            fifo_seq: _,
            // For the counters alone.
            throttled_since: _,
            delivery,
            reduced_since,
            another_begins,
        } = self;
        let idle = *state == ScState::Off;
        class.normalise(idle, to);
        state.normalise(to);
        to.size(standing.fifo);
        delivery.normalise(standing.host_taken, idle, to);
        to.flag(reduced_since.is_some());
        to.future(*another_begins);
    }
}

impl ExecContext {
    fn normalise(&self, standing: &Standing, replenished_at: Ns, to: &mut Writer) {
        let Self {
            state,
            allowed,
            domain,
            last_cpu,
            // For the counters alone.
            throttled: _,
            wake_pending,
            wake_at,
            ending,
            hints,
            wrongly_suspected,
            has_halted,
            was_helped,
            has_tried_free,
            deferral,
            guessed_deferral,
            precedence,
        } = self;
        match *state {
            ExecState::Halted => to.number(0_u8),
            ExecState::Runnable { since } => {
                to.number(1_u8);
                to.size(standing.since);
                to.flag(since <= replenished_at);
            }
            ExecState::Running(cpu) => {
                to.number(2_u8);
                to.cpu(cpu);
            }
            ExecState::Paused => to.number(3_u8),
            ExecState::Gone => to.number(4_u8),
        }
        to.cpus(*allowed);
        to.number(domain.0);
        to.cpu(*last_cpu);
        to.flag(*wake_pending);
        to.option(*wake_at, Writer::time);
        to.flag(*ending);
        to.part(hints);
        to.flag(*wrongly_suspected);
        // These are of interest for suspicions alone.
        to.flag(*has_halted && hints.is_guess);
        to.flag(*was_helped && hints.is_guess);
        to.flag(*has_tried_free && hints.is_guess);
        to.part(deferral);
        to.part(guessed_deferral);
        to.part(precedence);
    }
}

impl VcpuState {
    /// Writes its normal form.
    pub(crate) fn normalise(&self, standing: &Standing, to: &mut Writer) {
        let Self {
            guest,
            sc,
            ec,
            pending: PendingChange { params, pinning },
        } = self;
        to.number(guest.0);
        sc.normalise(standing, to);
        ec.normalise(standing, sc.class.replenished_at(), to);
        to.option(params.as_ref(), |to, params| to.part(params));
        to.option(*pinning, |to, (cpus, domain)| {
            to.cpus(cpus);
            to.number(domain.0);
        });
    }
}
