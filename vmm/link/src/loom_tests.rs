//! Both sides under every interleaving. A wake-up that is lost is a deadlock, which loom reports.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::answer::Answer;
use crate::command::{Command, RunCommand};
use crate::error::LinkError;
use crate::pages::GuestPages;
use crate::pool_side::{PoolGuestLink, PoolSide, WaitLimits};
use crate::thread_side::{GuestPoolLink, ThreadSide};

const LIMITS: WaitLimits = WaitLimits {
    until: None,
    bound: 1,
    check_every: 1,
};

fn run(until: u64) -> Command {
    Command::Run(RunCommand {
        until: Some(until),
        host_cpu: 0,
        donated: None,
        is_deferred: false,
        stolen_ns: 0,
    })
}

fn preempted(depth: u32) -> Answer {
    Answer::Preempted(baton_machine::hints::HintSnapshot {
        depth,
        ..Default::default()
    })
}

struct Both {
    pool: PoolGuestLink,
    guest: GuestPoolLink,
    pool_side: PoolSide,
    thread_side: ThreadSide,
}

fn both() -> Both {
    let pages = GuestPages::private(1);
    let guest = GuestPoolLink::new(pages.clone());
    let pool = PoolGuestLink::new(pages);
    Both {
        pool_side: pool.vcpus().remove(0),
        thread_side: guest.vcpus().remove(0),
        pool,
        guest,
    }
}

#[test]
fn loom_each_command_gets_its_own_answer() {
    loom::model(|| {
        let Both {
            mut pool_side,
            mut thread_side,
            ..
        } = both();
        let vcpu = thread::spawn(move || {
            while let Ok(Command::Run(run)) = thread_side.wait() {
                let answer = preempted(run.until.unwrap() as u32);
                thread_side.answer(&answer).unwrap();
            }
        });
        for until in [3, 4] {
            pool_side.give(&run(until)).unwrap();
            let answer = pool_side.wait(&LIMITS, || 0);
            assert_eq!(answer, Ok(preempted(until as u32)));
        }
        pool_side.give(&Command::Stop).unwrap();
        vcpu.join().unwrap();
    });
}

#[test]
fn loom_an_executor_that_waits_notices_that_the_process_is_gone() {
    loom::model(|| {
        let Both {
            pool,
            mut pool_side,
            mut thread_side,
            ..
        } = both();
        pool_side.give(&run(3)).unwrap();
        let control = thread::spawn(move || pool.hang_up());
        let vcpu = thread::spawn(move || {
            // A process can die at any of these steps; a model ends with the thread's last one.
            assert_eq!(thread_side.wait(), Ok(run(3)));
        });
        assert_eq!(pool_side.wait(&LIMITS, || 0), Err(LinkError::Gone));
        assert_eq!(pool_side.give(&run(4)), Err(LinkError::Gone));
        control.join().unwrap();
        vcpu.join().unwrap();
    });
}

#[test]
fn loom_an_answer_at_the_moment_of_the_end_is_taken_or_the_process_is_gone() {
    loom::model(|| {
        let Both {
            pool,
            mut pool_side,
            mut thread_side,
            ..
        } = both();
        pool_side.give(&run(3)).unwrap();
        let vcpu = thread::spawn(move || {
            thread_side.wait().unwrap();
            thread_side.answer(&preempted(3)).unwrap();
        });
        let control = thread::spawn(move || pool.hang_up());
        let answer = pool_side.wait(&LIMITS, || 0);
        assert!(answer == Ok(preempted(3)) || answer == Err(LinkError::Gone));
        vcpu.join().unwrap();
        control.join().unwrap();
    });
}

#[test]
fn loom_a_thread_that_waits_notices_that_the_pool_is_gone() {
    loom::model(|| {
        let Both {
            guest,
            mut thread_side,
            ..
        } = both();
        let control = thread::spawn(move || guest.hang_up());
        assert_eq!(thread_side.wait(), Err(LinkError::Gone));
        control.join().unwrap();
    });
}

/// Signals of one thread, as the kernel queues them.
#[derive(Default)]
struct Signals {
    pending: Mutex<bool>,
    sent: Condvar,
}

impl Signals {
    fn send(&self) {
        *self.pending.lock().unwrap() = true;
        self.sent.notify_all();
    }

    /// Runs the guest until the command is kicked, as the vCPU's thread does.
    fn run_until_kicked(&self, side: &ThreadSide) {
        while !side.is_kicked() {
            let mut pending = self.pending.lock().unwrap();
            while !*pending {
                pending = self.sent.wait(pending).unwrap();
            }
            *pending = false;
        }
    }
}

#[test]
fn loom_a_kick_ends_its_command_and_no_later_one() {
    loom::model(|| {
        let Both {
            mut pool_side,
            mut thread_side,
            ..
        } = both();
        let signals = Arc::new(Signals::default());
        pool_side.give(&run(3)).unwrap();
        let vcpu = thread::spawn({
            let signals = Arc::clone(&signals);
            move || {
                thread_side.wait().unwrap();
                signals.run_until_kicked(&thread_side);
                thread_side.answer(&preempted(1)).unwrap();
                thread_side.wait().unwrap();
                assert!(!thread_side.is_kicked());
                thread_side.answer(&preempted(2)).unwrap();
            }
        });
        let kicker = thread::spawn({
            let kicker = pool_side.kicker();
            move || {
                assert!(kicker.kick(7));
                signals.send();
            }
        });
        assert_eq!(pool_side.wait(&LIMITS, || 0), Ok(preempted(1)));
        pool_side.give(&run(4)).unwrap();
        assert_eq!(pool_side.wait(&LIMITS, || 0), Ok(preempted(2)));
        kicker.join().unwrap();
        vcpu.join().unwrap();
    });
}

#[test]
fn loom_a_late_kicker_of_the_last_command_does_not_undo_a_kick_of_the_next() {
    loom::model(|| {
        let Both {
            mut pool_side,
            mut thread_side,
            ..
        } = both();
        let signals = Arc::new(Signals::default());
        pool_side.give(&run(3)).unwrap();
        let late = thread::spawn({
            let kicker = pool_side.kicker();
            let signals = Arc::clone(&signals);
            move || {
                if kicker.kick(7) {
                    signals.send();
                }
            }
        });
        thread_side.wait().unwrap();
        thread_side.answer(&preempted(1)).unwrap();
        assert_eq!(pool_side.take_answer(), Ok(Some(preempted(1))));
        pool_side.give(&run(4)).unwrap();
        thread_side.wait().unwrap();
        // The late kicker may still kick this command instead.
        if pool_side.kicker().kick(8) {
            signals.send();
        }
        signals.run_until_kicked(&thread_side);
        late.join().unwrap();
    });
}

#[test]
fn loom_a_wake_is_reported_or_found_at_the_end_of_the_watch() {
    loom::model(|| {
        let Both {
            mut pool_side,
            mut thread_side,
            ..
        } = both();
        pool_side.give(&Command::Sleep).unwrap();
        let vcpu = thread::spawn(move || {
            assert_eq!(thread_side.wait(), Ok(Command::Sleep));
            thread_side.answer(&Answer::Woken).unwrap();
            !thread_side.was_watched()
        });
        drop(pool_side.watch());
        let found = pool_side.take_answer().unwrap() == Some(Answer::Woken);
        let reported = vcpu.join().unwrap();
        assert!(found || reported);
    });
}
