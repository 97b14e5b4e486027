//! The pools that are explored.

use vcpu_sched::Reservation;

use crate::pool::{Events, Pool, Speech, fair, hard, on, soft, with, within};

/// Holders that are throttled and waiters with budgets, and a guest of best effort.
pub const SPINNERS_ON_ONE_CPU: Pool = Pool {
    name: "spinners on one cpu",
    cpus: 1,
    guests: &[&[with(hard(2, 6)), with(hard(1, 6))], &[fair(1)]],
    events: Events {
        speech: Speech::Spins,
        ..Events::NONE
    },
};

/// Mutexes that are handed over, by vCPUs that hold them and by those that do not.
pub const SLEEPERS_ON_ONE_CPU: Pool = Pool {
    name: "sleepers on one cpu",
    cpus: 1,
    guests: &[&[with(hard(1, 4)), with(hard(1, 6)), fair(1)], &[fair(1)]],
    events: Events {
        speech: Speech::Sleeps,
        ..Events::NONE
    },
};

/// Waiters and holders that are pinned to different CPUs.
pub const SPINNERS_ON_TWO_CPUS: Pool = Pool {
    name: "spinners on two cpus",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), fair(2), fair(3)], &[on(3, hard(2, 6))]],
    events: Events {
        speech: Speech::Spins,
        ..Events::NONE
    },
};

/// Two guests whose kicks arrive late.
pub const SPINNERS_WITH_LATE_KICKS: Pool = Pool {
    name: "spinners with late kicks",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), on(2, hard(1, 6))], &[fair(3), fair(3)]],
    events: Events {
        speech: Speech::Spins,
        late: true,
        ..Events::NONE
    },
};

/// Sleepers and hand-overs between CPUs.
pub const SLEEPERS_ON_TWO_CPUS: Pool = Pool {
    name: "sleepers on two cpus",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), fair(2), fair(3)], &[on(3, soft(1, 6))]],
    events: Events {
        speech: Speech::Sleeps,
        ..Events::NONE
    },
};

/// Two guests whose waiters are pinned to the CPU of the other guest's holder.
pub const CROSSED_WAITERS: Pool = Pool {
    name: "crossed waiters",
    cpus: 2,
    guests: &[&[fair(1), on(2, hard(1, 4))], &[fair(2), on(1, hard(1, 6))]],
    events: Events {
        speech: Speech::Sleeps,
        ..Events::NONE
    },
};

/// A guest whose hints the host infers, beside one of best effort.
pub const INFERRED_ON_ONE_CPU: Pool = Pool {
    name: "inferred on one cpu",
    cpus: 1,
    guests: &[&[with(hard(2, 6)), with(hard(1, 6)), fair(1)], &[fair(1)]],
    events: Events {
        speech: Speech::Inferred,
        ..Events::NONE
    },
};

/// The same on two CPUs, with a deferral.
pub const INFERRED_ON_TWO_CPUS: Pool = Pool {
    name: "inferred on two cpus",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), fair(2), fair(3)], &[on(3, hard(2, 6))]],
    events: Events {
        speech: Speech::Inferred,
        deferral: true,
        ..Events::NONE
    },
};

/// Holders that are out of time.
pub const DEFERRALS: Pool = Pool {
    name: "deferrals",
    cpus: 1,
    guests: &[&[with(hard(2, 6)), with(soft(1, 6))], &[with(hard(1, 4))]],
    events: Events {
        speech: Speech::Spins,
        deferral: true,
        ..Events::NONE
    },
};

/// Reservations of each kind that only compute and sleep.
pub const BUDGETS_ON_ONE_CPU: Pool = Pool {
    name: "budgets on one cpu",
    cpus: 1,
    guests: &[
        &[with(hard(1, 4)), with(within(1, 6, 3))],
        &[with(soft(1, 6)), fair(1)],
    ],
    events: Events {
        timed_halts: true,
        ..Events::NONE
    },
};

/// The same on two CPUs, with kicks that arrive late.
pub const BUDGETS_ON_TWO_CPUS: Pool = Pool {
    name: "budgets on two cpus",
    cpus: 2,
    guests: &[
        &[on(1, hard(1, 4)), on(3, within(1, 6, 3))],
        &[on(2, soft(1, 6)), fair(3)],
    ],
    events: Events {
        timed_halts: true,
        late: true,
        ..Events::NONE
    },
};

/// Weights alone.
pub const BEST_EFFORT: Pool = Pool {
    name: "best effort",
    cpus: 2,
    guests: &[&[fair(1), fair(3)], &[fair(3), fair(2)]],
    events: Events {
        timed_halts: true,
        ..Events::NONE
    },
};

const OTHERS: &[Reservation] = &[hard(2, 4), hard(1, 6), within(1, 6, 3)];

/// Reservations that change.
pub const OTHER_RESERVATIONS: Pool = Pool {
    name: "other reservations",
    cpus: 1,
    guests: &[&[with(hard(1, 4)), fair(1)], &[with(hard(1, 6))]],
    events: Events {
        reservations: OTHERS,
        ..Events::NONE
    },
};

/// CPUs and classes that change.
pub const OTHER_CPUS: Pool = Pool {
    name: "other cpus",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), fair(3)], &[on(2, soft(2, 6))]],
    events: Events {
        speech: Speech::Spins,
        reservations: &[hard(2, 4)],
        weights: true,
        pins: &[1, 2, 3],
        ..Events::NONE
    },
};

/// vCPUs and guests that end and come back.
pub const ENDS: Pool = Pool {
    name: "ends",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), fair(3)], &[on(3, hard(2, 6))]],
    events: Events {
        speech: Speech::Sleeps,
        ends: true,
        workers: true,
        ..Events::NONE
    },
};

/// Guests that are paused.
pub const PAUSES: Pool = Pool {
    name: "pauses",
    cpus: 1,
    guests: &[&[with(hard(1, 4)), fair(1)], &[with(hard(2, 6))]],
    events: Events {
        speech: Speech::Sleeps,
        timed_halts: true,
        pauses: true,
        ..Events::NONE
    },
};

/// Threads of devices, and what else other threads use.
pub const WORKERS: Pool = Pool {
    name: "workers",
    cpus: 2,
    guests: &[&[on(1, hard(1, 4)), fair(3)], &[on(3, hard(2, 6))]],
    events: Events {
        timed_halts: true,
        workers: true,
        spending: true,
        ..Events::NONE
    },
};

/// CPUs that go offline and online.
pub const HOTPLUG: Pool = Pool {
    name: "hotplug",
    cpus: 2,
    guests: &[&[on(1, hard(3, 4)), fair(3)], &[on(2, hard(2, 6)), fair(2)]],
    events: Events {
        speech: Speech::Spins,
        hotplug: true,
        ..Events::NONE
    },
};

/// CPUs that the host takes away.
pub const STEAL: Pool = Pool {
    name: "steal",
    cpus: 1,
    guests: &[&[with(hard(2, 6)), with(hard(1, 6))], &[fair(1)]],
    events: Events {
        timed_halts: true,
        late: true,
        steal: true,
        ..Events::NONE
    },
};

/// A reservation beside best effort.
pub const ONE_BUDGET: Pool = Pool {
    name: "one budget",
    cpus: 1,
    guests: &[&[with(hard(2, 5))], &[fair(1)]],
    events: Events {
        timed_halts: true,
        ..Events::NONE
    },
};

/// Two reservations.
pub const TWO_BUDGETS: Pool = Pool {
    name: "two budgets",
    cpus: 1,
    guests: &[&[with(hard(1, 3))], &[with(hard(2, 5))]],
    events: Events {
        timed_halts: true,
        ..Events::NONE
    },
};

/// A lock between two vCPUs.
pub const ONE_LOCK: Pool = Pool {
    name: "one lock",
    cpus: 1,
    guests: &[&[with(hard(1, 3)), with(hard(1, 4))]],
    events: Events {
        speech: Speech::Spins,
        ..Events::NONE
    },
};

/// A mutex between two vCPUs.
pub const ONE_MUTEX: Pool = Pool {
    name: "one mutex",
    cpus: 1,
    guests: &[&[with(hard(1, 3)), fair(1)]],
    events: Events {
        speech: Speech::Sleeps,
        ..Events::NONE
    },
};

/// A lock between two CPUs.
pub const LOCK_BETWEEN_CPUS: Pool = Pool {
    name: "lock between CPUs",
    cpus: 2,
    guests: &[&[on(1, hard(1, 3)), fair(2)]],
    events: Events {
        speech: Speech::Spins,
        ..Events::NONE
    },
};

/// One vCPU whose reservation changes, beside best effort.
pub const ONE_CHANGE: Pool = Pool {
    name: "one change",
    cpus: 1,
    guests: &[&[with(hard(1, 4))], &[fair(1)]],
    events: Events {
        reservations: &[hard(2, 4), within(1, 3, 2)],
        weights: true,
        ..Events::NONE
    },
};

/// A vCPU that moves.
pub const ONE_MOVE: Pool = Pool {
    name: "one move",
    cpus: 2,
    guests: &[&[on(1, hard(1, 3)), fair(2)]],
    events: Events {
        pins: &[1, 2, 3],
        ..Events::NONE
    },
};

/// Two guests that are paused.
pub const ONE_PAUSE: Pool = Pool {
    name: "one pause",
    cpus: 1,
    guests: &[&[with(hard(1, 3))], &[fair(1)]],
    events: Events {
        timed_halts: true,
        pauses: true,
        ..Events::NONE
    },
};

/// Two guests that end and come back.
pub const ONE_END: Pool = Pool {
    name: "one end",
    cpus: 1,
    guests: &[&[with(hard(1, 3))], &[with(hard(2, 4))]],
    events: Events {
        ends: true,
        ..Events::NONE
    },
};

/// The workers of two guests.
pub const ONE_WORKER: Pool = Pool {
    name: "one worker",
    cpus: 1,
    guests: &[&[with(hard(1, 3))], &[fair(1)]],
    events: Events {
        workers: true,
        ..Events::NONE
    },
};

/// A CPU that goes offline and online.
pub const ONE_HOTPLUG: Pool = Pool {
    name: "one hotplug",
    cpus: 2,
    guests: &[&[on(1, hard(2, 3))], &[on(2, hard(2, 4)), fair(3)]],
    events: Events {
        hotplug: true,
        ..Events::NONE
    },
};
