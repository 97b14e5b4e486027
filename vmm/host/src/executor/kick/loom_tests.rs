//! The protocol under every interleaving. `KVM_RUN` and sleep are modelled as waits that only the
//! signal handler's flag or the unpark token ends, so a lost kick is a deadlock, which loom reports.

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
    state: ExecutorState,
    immediate_exit: Flag,
    token: Flag,
    /// What the policy has for the executor to see.
    work: AtomicBool,
}

/// Kicks by `kickers` threads against an executor that leaves the host as `enter` does.
fn check(kickers: usize, enter: impl Fn(&Shared) + Sync + Send + 'static) {
    loom::model(move || {
        let shared = Arc::new(Shared {
            state: ExecutorState::new(),
            immediate_exit: Flag::new(),
            token: Flag::new(),
            work: AtomicBool::new(false),
        });
        let kickers: Vec<_> = (0..kickers)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.work.store(true, Ordering::Release);
                    match shared.state.kick() {
                        Notify::Nothing => {}
                        Notify::Signal => shared.immediate_exit.set(),
                        Notify::Unpark => shared.token.set(),
                    }
                })
            })
            .collect();
        loop {
            shared.state.take_kick();
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
        if shared.state.enter_guest() {
            shared.immediate_exit.wait_and_take();
            shared.state.return_to_host();
        }
    });
}

#[test]
fn loom_a_kick_is_not_lost_on_an_executor_that_goes_on_after_another_signal() {
    check(1, |shared| {
        if shared.state.enter_guest() {
            // The other signal may come before, with or after that of the kick.
            shared.immediate_exit.set();
            loop {
                shared.immediate_exit.wait_and_take();
                if shared.state.is_kicked() {
                    break;
                }
            }
            shared.state.return_to_host();
        }
    });
}

#[test]
fn loom_a_kick_always_wakes_an_executor_that_is_or_falls_asleep() {
    check(2, |shared| {
        if shared.state.fall_asleep() {
            shared.token.wait_and_take();
            shared.state.return_to_host();
        }
    });
}
