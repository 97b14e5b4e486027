//! Spinlocks, each with and without hints, its waiters spinning or going idle after a while. (The
//! mutex, whose waiters sleep, has the same face: `mutex`.)
//!
//! Without hints nothing is stored for the host and no doorbell but idle and wake-up rings.

mod mcs;
mod tas;
mod ticket;
mod waiter;

pub use tas::Tas;
pub use waiter::Waiter;

use crate::config::{self, LockKind};
use crate::cpu::Cpu;
use crate::hints;
use crate::mutex::Mutex;

/// What a lock does besides locking; a type, so that the code of the other modes is not there.
pub trait Mode {
    /// Tell the host who holds and who waits.
    const HINTS: bool;
    /// Waiters go idle after a while and the releaser wakes them.
    const PARK: bool;
}

pub struct With<const HINTS: bool, const PARK: bool>;

impl<const H: bool, const P: bool> Mode for With<H, P> {
    const HINTS: bool = H;
    const PARK: bool = P;
}

/// Nothing but locking.
pub type Plain = With<false, false>;
/// With hints.
pub type Hinted = With<true, false>;

/// A lock. Whoever has a spinlock or waits for one is not preempted (`preempt.rs`): its siblings would
/// spin for it on its own vCPU.
pub trait Lock: Sync + 'static {
    fn lock<M: Mode>(&self, cpu: &Cpu);
    fn unlock<M: Mode>(&self, cpu: &Cpu);
}

/// Something to do with a lock.
pub trait Job {
    fn run<L: Lock, M: Mode>(self, lock: &'static L);
}

static TAS: Tas = Tas::new();
static TICKET: ticket::Ticket = ticket::Ticket::new();
static MCS: mcs::Mcs = mcs::Mcs::new();
static MUTEX: Mutex = Mutex::new();

/// Does the job with the lock and mode that the command line asks for.
pub fn with_configured(job: impl Job) {
    match config::get().lock {
        LockKind::Tas => with(job, &TAS),
        LockKind::Ticket => with(job, &TICKET),
        LockKind::Mcs => with(job, &MCS),
        LockKind::Mutex => with(job, &MUTEX),
    }
}

fn with<L: Lock>(job: impl Job, lock: &'static L) {
    match (hints::on(), config::get().park) {
        (false, false) => job.run::<L, With<false, false>>(lock),
        (false, true) => job.run::<L, With<false, true>>(lock),
        (true, false) => job.run::<L, With<true, false>>(lock),
        (true, true) => job.run::<L, With<true, true>>(lock),
    }
}
