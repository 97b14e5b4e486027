//! What can happen in a pool, one step at a time.

use std::fmt;

/// What a vCPU is known to say when it stops: what it has published, or what the host has inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The same as when it last stopped.
    Same,
    /// It holds nothing and waits for none.
    Nothing,
    /// It holds a lock.
    Holds,
    /// It has released a lock since it last stopped, and holds none.
    Released,
    /// It spins for a lock of this vCPU, which it has read correctly.
    Spins(u8),
    /// It spins for a lock of this vCPU, which that one has released in the meantime.
    SpinsTooLate(u8),
    /// A task of it sleeps for a mutex of this vCPU.
    Sleeps(u8),
    /// The host infers that it holds nothing.
    SeenFree,
    /// The host infers that it holds something.
    SeenHolding,
    /// The host infers that it spins.
    SeenSpinning,
}

/// One step. CPUs, vCPUs, guests and workers are named by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time goes on by one unit, or to the next moment at which something is due, if that is earlier.
    Tick,
    /// Time goes on to the next moment at which something is due.
    Pass,
    /// The CPU, which was kicked or whose time is up, stops what it runs and picks.
    Serve(u8, Said),
    /// The CPU, which was kicked or whose time is up, requests a deferral.
    Defer(u8, Said),
    /// What the CPU runs rings its doorbell.
    Ring(u8, Said),
    /// What the CPU runs halts.
    Halt(u8, Said),
    /// What the CPU runs halts for two units of time.
    HaltFor(u8, Said),
    /// What the CPU runs ends.
    End(u8),
    /// What the CPU runs releases the lock for which it is carried, perhaps to another vCPU, and rings.
    Release(u8, Option<u8>),
    /// What the CPU runs hands a lock to a vCPU.
    HandOver(u8, u8, u8),
    /// What the CPU runs wakes a vCPU.
    WakeBy(u8, u8),
    /// An interrupt wakes a vCPU.
    Wake(u8),
    /// Another thread has used one unit of CPU time for a vCPU.
    Spend(u8),
    /// The sleep of a vCPU has used one unit of CPU time on a CPU.
    SpendSleeping(u8, u8),
    /// The host has taken the CPU for as long as the decision under way has lasted.
    Steal(u8),
    /// A vCPU gets the reservation with this number.
    SetReservation(u8, u8),
    /// A vCPU gets a weight.
    SetWeight(u8),
    /// A vCPU may run on these CPUs, as a mask.
    SetAllowed(u8, u8),
    /// A guest is paused.
    Pause(u8),
    /// A guest is resumed.
    Resume(u8),
    /// A vCPU is removed.
    Remove(u8),
    /// A guest is removed.
    RemoveGuest(u8),
    /// A guest that was removed is reclaimed.
    Reclaim(u8),
    /// A guest like the one that was reclaimed is admitted.
    Admit(u8),
    /// The worker of a guest requests a grant.
    WorkerReady(u8),
    /// The worker of a guest has worked for one unit of CPU time and stops.
    WorkerStops(u8),
    /// A CPU goes offline.
    Offline(u8),
    /// A CPU goes online.
    Online(u8),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
