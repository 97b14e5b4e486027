//! What ends a command early.
//!
//! A kick of the pool, the next phase of the thread and the guest's end are recorded first, and then the kick
//! signal is sent to the thread. Its handler sets `immediate_exit` of the vCPU at which the thread has directed
//! it. So a thread that directs the signal first and then finds nothing recorded is brought out of `KVM_RUN` by
//! whatever is recorded later.

use std::thread;
use std::time::Duration;

use baton_link::thread_side::ThreadSide;
use baton_machine::{Guest, ImmediateExit};

use super::phase::PhaseSlot;
use crate::executor::kick_handler::KickGuard;
use crate::executor::kicks::Kicks;
use crate::halt::Interruption;

/// The longest pause of a sleep, for a kick does not end a pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// What may end the command that a thread carries out.
pub(super) struct CommandKicks<'a> {
    pub(super) side: &'a ThreadSide,
    pub(super) slot: &'a PhaseSlot,
    pub(super) guest: &'a Guest,
}

impl Kicks for CommandKicks<'_> {
    fn enter_guest(&self) -> bool {
        !self.is_kicked()
    }

    fn is_kicked(&self) -> bool {
        self.side.is_kicked() || self.slot.has_next() || self.guest.has_ended()
    }

    fn leave_guest(&self) {}
}

/// The same for a vCPU that sleeps.
pub(super) struct CommandedSleep<'a> {
    pub(super) kicks: CommandKicks<'a>,
    /// Directs the kick signal at the vCPU.
    pub(super) guard: &'a KickGuard,
}

impl Interruption for CommandedSleep<'_> {
    fn begin_sleep(&self, _: ImmediateExit) -> bool {
        !self.kicks.is_kicked()
    }

    fn is_interrupted(&self) -> bool {
        // A signal without a cause must not keep the vCPU out of `KVM_RUN`.
        self.guard.rearm();
        self.kicks.is_kicked()
    }

    fn pause(&self, time: Duration) {
        thread::sleep(time.min(LONGEST_PAUSE));
    }

    fn end_sleep(&self) {}
}
