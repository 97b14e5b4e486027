//! Kicks: they make an executor have the policy decide again, wherever the executor is, and none is lost.
//!
//! An executor is in one of three states: in the host (in its own code), in the guest, or asleep. A kick
//! sets `PENDING`. What else it takes depends on the state at that very moment:
//!
//! ```text
//!   executor                                   kicker
//!   1. publish immediate_exit to the handler   a. old = state.fetch_or(PENDING)
//!   2. host -> guest, unless PENDING           b. old had PENDING: another kicker does the rest
//!   3. KVM_RUN                                 c. old = host: nothing, step 2 or 5 will see it
//!   4. guest -> host, PENDING stays            d. old = guest: signal; the handler sets
//!   5. asleep instead of guest: the same          immediate_exit, which ends or prevents step 3
//!   6. take PENDING; the policy decides        e. old = asleep: unpark
//! ```
//!
//! After a signal that was no kick the executor may go on: it clears `immediate_exit`, and unless
//! PENDING is set, continues with step 3. A kick before the clearing is seen by the check of PENDING, a
//! kick after it sets the flag again.
//!
//! Step 1 comes before step 2, so a signal between 2 and 3 finds the flag to set, and `KVM_RUN` returns
//! at once. A signal that comes late, when the executor is back in the host or in another guest, costs
//! one needless exit and nothing else. Checked under loom (`scripts/loom`).

use crate::sync::atomic::{AtomicU32, Ordering};

/// In its own code.
const HOST: u32 = 0;
/// In the guest, or about to enter.
const GUEST: u32 = 1;
/// Asleep, or about to be.
const ASLEEP: u32 = 2;
/// Kicked, and the policy has not decided since.
const PENDING: u32 = 4;

/// What a kicker has to do to reach the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Notify {
    /// Nothing: the executor will see the kick by itself, or another kicker reaches it.
    Nothing,
    /// Send the kick signal to the thread in the guest.
    Signal,
    /// Unpark the executor's thread.
    Unpark,
}

/// Where one executor is, and whether a kick is pending.
#[derive(Debug)]
pub(crate) struct ExecutorState(AtomicU32);

impl ExecutorState {
    /// In the host, not kicked.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(HOST))
    }

    /// Steps a to e; the caller does what the answer says.
    pub(crate) fn kick(&self) -> Notify {
        match self.0.fetch_or(PENDING, Ordering::AcqRel) {
            GUEST => Notify::Signal,
            ASLEEP => Notify::Unpark,
            _ => Notify::Nothing,
        }
    }

    /// Step 2. False: a kick is pending, do not enter.
    pub(crate) fn enter_guest(&self) -> bool {
        self.leave_host(GUEST)
    }

    /// Step 5. False: a kick is pending, do not sleep.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.leave_host(ASLEEP)
    }

    fn leave_host(&self, to: u32) -> bool {
        self.0
            .compare_exchange(HOST, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Step 4, from the guest or from sleep.
    pub(crate) fn return_to_host(&self) {
        self.0.fetch_and(PENDING, Ordering::AcqRel);
    }

    /// Whether a kick is pending, which stays so. For an executor that is to go on with step 3 after a
    /// signal that was no kick; it has cleared `immediate_exit` before.
    pub(crate) fn is_kicked(&self) -> bool {
        self.0.load(Ordering::Acquire) & PENDING != 0
    }

    /// Step 6. Whether a kick was pending.
    pub(crate) fn take_kick(&self) -> bool {
        self.0.fetch_and(!PENDING, Ordering::AcqRel) & PENDING != 0
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_before_entering_keeps_the_executor_out_until_it_has_taken_the_kick() {
        let state = ExecutorState::new();
        assert_eq!(state.kick(), Notify::Nothing);
        assert!(!state.enter_guest() && !state.fall_asleep());
        assert!(state.take_kick());
        assert!(state.enter_guest());
    }

    #[test]
    fn the_first_kick_in_the_guest_signals_and_the_second_need_not() {
        let state = ExecutorState::new();
        assert!(state.enter_guest());
        assert_eq!(state.kick(), Notify::Signal);
        assert_eq!(state.kick(), Notify::Nothing);
        state.return_to_host();
        assert!(state.take_kick() && !state.take_kick());
    }

    #[test]
    fn an_executor_that_sleeps_is_unparked() {
        let state = ExecutorState::new();
        assert!(state.fall_asleep());
        assert_eq!(state.kick(), Notify::Unpark);
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
