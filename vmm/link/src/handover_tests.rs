//! Both sides of a hand-over in one process, and what the pool makes of a process that lies.

use std::cell::Cell;
use std::thread;

use baton_machine::hints::HintSnapshot;

use crate::answer::{Answer, AnswerError};
use crate::command::{Command, CommandError, CommandKind, RunCommand};
use crate::error::{LinkError, ProtocolError};
use crate::pages::GuestPages;
use crate::pool_side::{PoolGuestLink, PoolSide, WaitLimits};
use crate::sync::FutexWord;
use crate::sync::atomic::Ordering::Relaxed;
use crate::thread_side::{GuestPoolLink, ThreadSide};

const LIMITS: WaitLimits = WaitLimits {
    until: None,
    bound: 1_000_000,
    check_every: 1_000_000,
};

const RUN: Command = Command::Run(RunCommand {
    until: Some(5),
    host_cpu: 0,
    donated: None,
    is_deferred: false,
    stolen_ns: 0,
});

const PREEMPTED: Answer = Answer::Preempted(HintSnapshot {
    depth: 0,
    releases: 0,
    wait: None,
    waits: false,
    is_guess: false,
});

struct Both {
    /// The mapping of a process that writes what it likes.
    pages: GuestPages,
    pool: PoolGuestLink,
    guest: GuestPoolLink,
    pool_side: PoolSide,
    thread_side: ThreadSide,
}

fn both() -> Both {
    let (theirs, file) = GuestPages::create(1).expect("pages");
    let pool = PoolGuestLink::new(GuestPages::accept(&file, 1).expect("accepted"));
    let guest = GuestPoolLink::new(theirs.clone());
    Both {
        pool_side: pool.vcpus().remove(0),
        thread_side: guest.vcpus().remove(0),
        pages: theirs,
        pool,
        guest,
    }
}

impl Both {
    fn answer_number(&self) -> &FutexWord {
        &self.pages.iter().next().expect("a page").answer.number
    }

    fn command_number(&self) -> &FutexWord {
        &self.pages.iter().next().expect("a page").command.number
    }
}

#[test]
fn a_sleep_is_answered_without_anybody_who_waits() {
    let mut both = both();
    both.pool_side.give(&Command::Sleep).expect("given");
    assert_eq!(both.pool_side.take_answer(), Ok(None));
    assert_eq!(both.thread_side.wait(), Ok(Command::Sleep));
    both.thread_side.answer(&Answer::Woken).expect("answered");
    assert_eq!(both.pool_side.take_answer(), Ok(Some(Answer::Woken)));
    assert_eq!(both.pool_side.take_answer(), Err(LinkError::NoCommand));
}

#[test]
fn a_vcpu_has_one_owner() {
    let mut both = both();
    assert_eq!(
        both.thread_side.answer(&PREEMPTED),
        Err(LinkError::NoCommand)
    );
    both.pool_side.give(&RUN).expect("given");
    let unanswered = LinkError::Unanswered(CommandKind::Run);
    assert_eq!(both.pool_side.give(&RUN), Err(unanswered));
    both.thread_side.wait().expect("a command");
    assert_eq!(both.thread_side.wait(), Err(unanswered));
    both.thread_side.answer(&PREEMPTED).expect("answered");
    assert_eq!(
        both.thread_side.answer(&PREEMPTED),
        Err(LinkError::NoCommand)
    );
    assert_eq!(both.pool_side.wait(&LIMITS, || 0), Ok(PREEMPTED));
    both.pool_side.give(&RUN).expect("given again");
}

#[test]
fn an_old_answer_or_one_to_a_command_that_was_never_given_is_a_lie() {
    for wrong in [2, 3, 7, u32::MAX, 1 << 31] {
        let mut both = both();
        both.pool_side.give(&RUN).expect("given");
        both.answer_number().store(wrong);
        let refused = both.pool_side.wait(&LIMITS, || 0);
        assert!(matches!(
            refused,
            Err(LinkError::Protocol(ProtocolError::Number {
                expected: 1,
                ..
            }))
        ));
        // What comes later is not believed either.
        both.answer_number().store(1);
        assert_eq!(both.pool_side.wait(&LIMITS, || 0), refused);
        assert_eq!(both.pool_side.give(&RUN).err(), refused.err());
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_a_lie() {
    let mut both = both();
    both.pool_side.give(&Command::Sleep).expect("given");
    let page = both.pages.iter().next().expect("a page");
    page.answer.reason.store(1, Relaxed);
    both.answer_number().store(1);
    let (reason, command) = (1, CommandKind::Sleep);
    let error = AnswerError::NotOfCommand { reason, command };
    let error = LinkError::Protocol(ProtocolError::Answer(error));
    assert_eq!(both.pool_side.take_answer(), Err(error));
}

#[test]
fn a_command_that_makes_no_sense_is_refused_by_the_thread() {
    let mut both = both();
    both.command_number().store(1);
    let error = ProtocolError::Command(CommandError::Kind(0));
    assert_eq!(both.thread_side.wait(), Err(LinkError::Protocol(error)));
    let mut both = self::both();
    both.command_number().store(5);
    let refused = both.thread_side.wait();
    assert!(matches!(
        refused,
        Err(LinkError::Protocol(ProtocolError::Number {
            actual: 5,
            expected: 1
        }))
    ));
}

#[test]
fn wakeups_without_an_answer_are_a_lie_when_there_are_too_many() {
    let mut both = both();
    both.pool_side.give(&RUN).expect("given");
    let pages = both.pages.clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                pages
                    .iter()
                    .next()
                    .expect("a page")
                    .answer
                    .number
                    .wake_all();
            }
        });
        let limits = WaitLimits {
            check_every: 1_000_000_000,
            ..LIMITS
        };
        let refused = both.pool_side.wait(&limits, || 0);
        stop.store(true, Relaxed);
        assert!(matches!(
            refused,
            Err(LinkError::Protocol(ProtocolError::Wakeups(_)))
        ));
    });
}

#[test]
fn a_thread_that_does_not_come_back_is_overdue_from_its_end_or_its_kick_on() {
    let clock = Cell::new(0);
    // Each look at the clock is a check, so no time need pass.
    let tick = || {
        clock.set(clock.get() + 100);
        clock.get()
    };
    let limits = |until| WaitLimits {
        until,
        bound: 1_000,
        check_every: 1,
    };
    let mut both = both();
    both.pool_side.give(&RUN).expect("given");
    let late_ns = 0;
    let overdue = Err(LinkError::Overdue { late_ns });
    assert_eq!(both.pool_side.wait(&limits(Some(5_000)), tick), overdue);
    assert_eq!(clock.get(), 6_000);
    // A kick counts from its own time, and a second one gives no more time.
    let kicker = both.pool_side.kicker();
    assert!(kicker.kick(7_000) && !kicker.kick(9_000));
    assert_eq!(both.pool_side.wait(&limits(None), tick), overdue);
    assert_eq!(clock.get(), 8_000);
    assert_eq!(
        both.pool_side.wait(&limits(Some(5_000)), tick),
        Err(LinkError::Overdue { late_ns: 2_100 })
    );
    // An answer that comes in the end is still the answer.
    both.thread_side.wait().expect("a command");
    assert!(both.thread_side.is_kicked());
    both.thread_side.answer(&PREEMPTED).expect("answered");
    assert_eq!(both.pool_side.wait(&limits(None), tick), Ok(PREEMPTED));
}

#[test]
fn a_kick_without_a_command_does_nothing_and_none_reaches_the_next_command() {
    let mut both = both();
    let kicker = both.pool_side.kicker();
    assert!(!kicker.kick(1));
    both.pool_side.give(&RUN).expect("given");
    assert!(kicker.kick(2));
    both.thread_side.wait().expect("a command");
    assert!(both.thread_side.is_kicked());
    both.thread_side.answer(&PREEMPTED).expect("answered");
    both.pool_side.wait(&LIMITS, || 0).expect("an answer");
    assert!(!kicker.kick(3));
    both.pool_side.give(&RUN).expect("given");
    both.thread_side.wait().expect("a command");
    assert!(!both.thread_side.is_kicked());
}

#[test]
fn the_end_of_the_other_process_is_noticed_by_both_sides() {
    let mut both = both();
    both.pool_side.give(&RUN).expect("given");
    both.pool.hang_up();
    assert_eq!(both.pool_side.wait(&LIMITS, || 0), Err(LinkError::Gone));
    assert_eq!(both.pool_side.give(&RUN), Err(LinkError::Gone));
    both.guest.hang_up();
    assert_eq!(both.thread_side.wait(), Err(LinkError::Gone));
}

#[test]
fn a_process_that_erases_the_mark_of_its_end_is_gone_all_the_same() {
    let mut both = both();
    both.pool_side.give(&RUN).expect("given");
    both.pool.hang_up();
    both.answer_number().store(0);
    assert_eq!(both.pool_side.wait(&LIMITS, || 0), Err(LinkError::Gone));
}

#[test]
fn an_answer_that_is_complete_outlives_the_process() {
    let mut both = both();
    both.pool_side.give(&RUN).expect("given");
    both.thread_side.wait().expect("a command");
    both.thread_side.answer(&PREEMPTED).expect("answered");
    both.pool.hang_up();
    assert_eq!(both.pool_side.wait(&LIMITS, || 0), Ok(PREEMPTED));
    assert_eq!(both.pool_side.give(&RUN), Err(LinkError::Gone));
}
