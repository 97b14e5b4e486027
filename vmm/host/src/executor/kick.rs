//! Kicks: asking an executor to look at the policy again, wherever it is, without losing one.
//!
//! An executor is in one of three places: in its own code, in the guest, or asleep. A kick sets
//! `PENDING`, and what else it takes depends on where the executor was at that very moment:
//!
//! ```text
//!   executor                                  kicker
//!   1. publish immediate_exit to the handler  a. old = place.fetch_or(PENDING)
//!   2. own -> guest, unless PENDING           b. old had PENDING: somebody else did the rest
//!   3. KVM_RUN                                c. old = own: nothing, step 2 or 5 will see it
//!   4. guest -> own, PENDING stays            d. old = guest: signal; the handler sets
//!   5. asleep instead of guest: the same         immediate_exit, which ends or prevents step 3
//!   6. take PENDING, then ask the policy      e. old = asleep: unpark
//! ```
//!
//! A `KVM_RUN` that another signal ended can go on: clear `immediate_exit`, and unless PENDING is set,
//! step 3. A kick before the clearing is seen, one after it sets the flag again.
//!
//! Step 1 comes before 2, so a signal that arrives between 2 and 3 finds the flag to set, and
//! `KVM_RUN` returns at once. A signal that comes late, when the executor is back in its own code
//! or in another guest, costs one needless exit and nothing else. Checked under loom
//! (`scripts/loom`).

use crate::sync::atomic::{AtomicU32, Ordering};

/// In its own code.
const OWN: u32 = 0;
/// In the guest, or about to enter.
const GUEST: u32 = 1;
/// Asleep, or about to be.
const ASLEEP: u32 = 2;
/// Kicked, and has not looked since.
const PENDING: u32 = 4;

/// What a kicker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Notify {
    /// Nothing: the executor will see it by itself, or has been told.
    Nothing,
    /// Send the kick signal to the thread in the guest.
    Signal,
    /// Unpark the executor's thread.
    Unpark,
}

/// Where one executor is, and whether it was kicked.
#[derive(Debug)]
pub(crate) struct Place(AtomicU32);

impl Place {
    /// In its own code, not kicked.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(OWN))
    }

    /// Steps a to e.
    pub(crate) fn kick(&self) -> Notify {
        match self.0.fetch_or(PENDING, Ordering::AcqRel) {
            GUEST => Notify::Signal,
            ASLEEP => Notify::Unpark,
            _ => Notify::Nothing,
        }
    }

    /// Step 2. False: kicked; do not enter.
    pub(crate) fn enter_guest(&self) -> bool {
        self.leave_own(GUEST)
    }

    /// Step 5. False: kicked; do not sleep.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.leave_own(ASLEEP)
    }

    fn leave_own(&self, to: u32) -> bool {
        self.0
            .compare_exchange(OWN, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Step 4, from the guest or from sleep.
    pub(crate) fn come_back(&self) {
        self.0.fetch_and(PENDING, Ordering::AcqRel);
    }

    /// Whether it was kicked, without taking that. For an executor whose `KVM_RUN` ended for nothing
    /// and that wants to go on with step 3: it clears `immediate_exit` first.
    pub(crate) fn is_kicked(&self) -> bool {
        self.0.load(Ordering::Acquire) & PENDING != 0
    }

    /// Step 6. Whether it was kicked.
    pub(crate) fn take(&self) -> bool {
        self.0.fetch_and(!PENDING, Ordering::AcqRel) & PENDING != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_kick_before_entering_keeps_the_executor_out_until_it_has_looked() {
        let place = Place::new();
        assert_eq!(place.kick(), Notify::Nothing);
        assert!(!place.enter_guest() && !place.fall_asleep());
        assert!(place.take());
        assert!(place.enter_guest());
    }

    #[test]
    fn the_first_kick_in_the_guest_signals_and_the_second_need_not() {
        let place = Place::new();
        assert!(place.enter_guest());
        assert_eq!(place.kick(), Notify::Signal);
        assert_eq!(place.kick(), Notify::Nothing);
        place.come_back();
        assert!(place.take() && !place.take());
    }

    #[test]
    fn a_sleeper_is_unparked() {
        let place = Place::new();
        assert!(place.fall_asleep());
        assert_eq!(place.kick(), Notify::Unpark);
    }
}

/// The protocol under every interleaving. `KVM_RUN` and sleep are modelled as waits that only the
/// signal handler's flag or the unpark token ends, so a lost kick is a deadlock, which loom reports.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::atomic::AtomicBool;
    use crate::sync::{Arc, Condvar, Mutex, thread};

    /// A flag that one thread sets and another waits for and takes: `kvm_run.immediate_exit`, or
    /// the token of `unpark`.
    struct Flag(Mutex<bool>, Condvar);

    impl Flag {
        fn new() -> Self {
            Self(Mutex::new(false), Condvar::new())
        }

        fn set(&self) {
            *self.0.lock() = true;
            self.1.notify_one();
        }

        fn wait_and_take(&self) {
            let mut set = self.0.lock();
            while !*set {
                set = self.1.wait(set);
            }
            *set = false;
        }
    }

    /// What the executor shares with its kickers.
    struct Shared {
        place: Place,
        immediate_exit: Flag,
        token: Flag,
        /// What the policy wants the executor to see.
        work: AtomicBool,
    }

    /// Kicks from `kickers` threads against an executor that goes where `enter` says.
    fn check(kickers: usize, enter: impl Fn(&Shared) + Sync + Send + 'static) {
        loom::model(move || {
            let shared = Arc::new(Shared {
                place: Place::new(),
                immediate_exit: Flag::new(),
                token: Flag::new(),
                work: AtomicBool::new(false),
            });
            let kickers: Vec<_> = (0..kickers)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        shared.work.store(true, Ordering::Release);
                        match shared.place.kick() {
                            Notify::Nothing => {}
                            Notify::Signal => shared.immediate_exit.set(),
                            Notify::Unpark => shared.token.set(),
                        }
                    })
                })
                .collect();
            loop {
                shared.place.take();
                if shared.work.load(Ordering::Acquire) {
                    break;
                }
                enter(&shared);
            }
            for kicker in kickers {
                kicker.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_a_kick_always_reaches_an_executor_in_or_near_the_guest() {
        check(2, |shared| {
            if shared.place.enter_guest() {
                shared.immediate_exit.wait_and_take();
                shared.place.come_back();
            }
        });
    }

    #[test]
    fn loom_a_kick_is_not_lost_on_an_executor_that_goes_on_after_a_signal_for_nothing() {
        check(1, |shared| {
            if shared.place.enter_guest() {
                // The signal for nothing may come before, with or after the kick's.
                shared.immediate_exit.set();
                loop {
                    shared.immediate_exit.wait_and_take();
                    if shared.place.is_kicked() {
                        break;
                    }
                }
                shared.place.come_back();
            }
        });
    }

    #[test]
    fn loom_a_kick_always_wakes_an_executor_that_is_or_falls_asleep() {
        check(2, |shared| {
            if shared.place.fall_asleep() {
                shared.token.wait_and_take();
                shared.place.come_back();
            }
        });
    }
}
