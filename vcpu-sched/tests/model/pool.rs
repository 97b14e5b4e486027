//! A small pool, and what can happen in it.

use vcpu_sched::{Config, CpuId, CpuSet, Ns, Reservation, SchedParams};

/// The unit of time, ns: all budgets, periods and slices are multiples of it. It is the length of a worker's grant.
pub const UNIT: Ns = 250_000;
/// A slice of best effort, in units. A quarter of it has to pass before a wake-up may end it.
pub const SLICE: Ns = 4;
/// For how long a spinning waiter is parked at most, in units.
pub const PARK: Ns = 3;
/// A halted vCPU with a timer sleeps for so long, in units.
pub const HALT_TIME: Ns = 2;

/// A vCPU: how it is scheduled, and its CPUs as a mask.
#[derive(Clone, Copy, Debug)]
pub struct Vcpu {
    pub params: SchedParams,
    pub pin: u8,
}

/// What vCPUs say when they stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Nothing.
    Silent,
    /// For whom they spin, rightly and wrongly.
    Spins,
    /// For whom they spin or sleep, rightly and wrongly, and what they hand over.
    Sleeps,
    /// Nothing: the host infers what they hold.
    Inferred,
}

/// What can happen, beside that time passes and vCPUs run, halt and wake.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    pub speech: Speech,
    /// Kicks take effect, and decisions end, up to one unit late.
    pub late: bool,
    /// Holders that are out of time request a deferral.
    pub deferral: bool,
    /// vCPUs halt with a timer.
    pub timed_halts: bool,
    /// vCPUs, and guests, end, are removed, reclaimed and admitted.
    pub ends: bool,
    pub pauses: bool,
    /// Reservations that vCPUs can get in place of what they have, in units: budget, period.
    pub reservations: &'static [Reservation],
    /// vCPUs can get a weight in place of what they have.
    pub weights: bool,
    /// CPUs that vCPUs can get in place of theirs, as masks.
    pub pins: &'static [u8],
    pub workers: bool,
    /// Other threads use CPU time for vCPUs.
    pub spending: bool,
    /// The host takes time from CPUs.
    pub steal: bool,
    /// CPUs go offline and online.
    pub hotplug: bool,
}

impl Events {
    /// None of them.
    pub const NONE: Self = Self {
        speech: Speech::Silent,
        late: false,
        deferral: false,
        timed_halts: false,
        ends: false,
        pauses: false,
        reservations: &[],
        weights: false,
        pins: &[],
        workers: false,
        spending: false,
        steal: false,
        hotplug: false,
    };
}

/// A pool.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub name: &'static str,
    pub cpus: usize,
    pub guests: &'static [&'static [Vcpu]],
    pub events: Events,
}

impl Pool {
    pub fn config(&self) -> Config {
        Config {
            slice_ns: SLICE * UNIT,
            park_ns: PARK * UNIT,
            defer_ns: self.events.deferral.then_some(UNIT),
            ..Config::new(self.cpus)
        }
    }

    /// On one CPU that is never late or taken away, all deadlines are kept as long as what other threads use, and
    /// deferrals, do not come on top.
    pub fn keeps_deadlines(&self) -> bool {
        let Events {
            late,
            deferral,
            spending,
            workers,
            steal,
            ..
        } = self.events;
        self.cpus == 1 && !(late || deferral || spending || workers || steal)
    }
}

/// A mask as a set of CPUs.
pub fn cpus(mask: u8) -> CpuSet {
    let all = (0..8).filter(|cpu| mask >> cpu & 1 == 1);
    all.map(CpuId).collect()
}

/// A reservation in units of time.
const fn reserved(reservation: Result<Reservation, vcpu_sched::ReservationError>) -> Reservation {
    match reservation {
        Ok(reservation) => reservation,
        Err(_) => panic!("a reservation of a pool is one"),
    }
}

/// So many units in so many, hard.
pub const fn hard(budget: Ns, period: Ns) -> Reservation {
    reserved(Reservation::hard(budget * UNIT, period * UNIT))
}

/// So many units in so many, soft.
pub const fn soft(budget: Ns, period: Ns) -> Reservation {
    reserved(Reservation::soft(budget * UNIT, period * UNIT))
}

/// So many units in so many and within so many, hard.
pub const fn within(budget: Ns, period: Ns, deadline: Ns) -> Reservation {
    let exhaustion = vcpu_sched::Exhaustion::Hard;
    let (period, deadline) = (period * UNIT, deadline * UNIT);
    reserved(Reservation::new(
        budget * UNIT,
        period,
        deadline,
        exhaustion,
    ))
}

/// A vCPU with this reservation that may run anywhere.
pub const fn with(reservation: Reservation) -> Vcpu {
    on(0xff, reservation)
}

/// A vCPU with this reservation that may run on these CPUs.
pub const fn on(pin: u8, reservation: Reservation) -> Vcpu {
    Vcpu {
        params: SchedParams::Reserved(reservation),
        pin,
    }
}

/// A vCPU of a guest of the largest weight.
pub const fn fair(pin: u8) -> Vcpu {
    let weight = WEIGHT;
    Vcpu {
        params: SchedParams::BestEffort { weight },
        pin,
    }
}

/// The largest weight.
pub const WEIGHT: u32 = 10_000;
