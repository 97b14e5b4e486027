//! The lock that the command line names.

use crate::config::{self, LockKind};
use crate::hints;
use crate::lock::{Lock, Mode, With};
use crate::locks::{Mcs, Tas, Ticket};
use crate::mutex::Mutex;

/// Something to do with a lock.
pub trait Job {
    /// Does it.
    fn run<L: Lock, M: Mode>(self, lock: &'static L);
}

static TAS: Tas = Tas::new();
static TICKET: Ticket = Ticket::new();
static MCS: Mcs = Mcs::new();
static MUTEX: Mutex = Mutex::new();

/// Does the job with the lock and the mode of the command line.
pub fn with(job: impl Job) {
    match config::get().lock {
        LockKind::Tas => with_lock(job, &TAS),
        LockKind::Ticket => with_lock(job, &TICKET),
        LockKind::Mcs => with_lock(job, &MCS),
        LockKind::Mutex => with_lock(job, &MUTEX),
    }
}

fn with_lock<L: Lock>(job: impl Job, lock: &'static L) {
    match (hints::on(), config::get().park) {
        (false, false) => job.run::<L, With<false, false>>(lock),
        (false, true) => job.run::<L, With<false, true>>(lock),
        (true, false) => job.run::<L, With<true, false>>(lock),
        (true, true) => job.run::<L, With<true, true>>(lock),
    }
}
