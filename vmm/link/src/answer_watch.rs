//! Waiting for vCPUs that sleep, several at once.
//!
//! A vCPU's thread that has woken reports that by the wake file of its guest, which is read by a thread of the pool.
//! An executor that has nothing to run can wait for the answers themselves instead, which is one thread less on the
//! way. While it does, the report is not needed.
//!
//! ```text
//!   the vCPU's thread                             the executor
//!   1. the number of the answer                   a. watched = 1
//!   2. reads watched                              b. waits until the word has another number, or the bell is rung
//!   3. wakes whoever waits for the number         c. watched = 0
//!   4. it was 0: reports by the wake file         d. looks for the answer
//! ```
//!
//! Each side writes its own word before it reads the other's. So if step 2 finds the watch, step d finds the answer.
//! A process that writes to the word itself keeps the wakes of its own vCPUs from being noticed, and no others.

use std::time::Duration;

use crate::number::CommandNumber;
use crate::pages::PageRef;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::atomic::{AtomicU32, fence};
use crate::sync::{Bell, WaitedFor, wait_any};

/// An executor waits for the answer of one vCPU until this is dropped. Then it has to look for the answer once more.
#[derive(Debug)]
pub struct AnswerWatch {
    page: PageRef,
    /// The number of the last answer that was taken.
    last: CommandNumber,
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// The vCPU of the watch with this index has answered, or its process has woken the executor for nothing.
    Answer(usize),
    /// The bell was rung, the time is over, or for no reason.
    Other,
    /// The host's kernel cannot wait for several words. Linux can since 5.16.
    Unsupported,
}

/// By which other threads of this process wake the one that waits.
#[derive(Debug, Default)]
pub struct WaitBell(Bell);

/// How often a bell had been rung.
#[derive(Clone, Copy, Debug)]
pub struct Rung(u32);

impl AnswerWatch {
    /// Step a: the answer after the one with the number `last` is waited for.
    pub(crate) fn begin(page: PageRef, last: CommandNumber) -> Self {
        set_watched(&page.command.watched, 1);
        Self { page, last }
    }
}

impl Drop for AnswerWatch {
    /// Step c.
    fn drop(&mut self) {
        set_watched(&self.page.command.watched, 0);
    }
}

fn set_watched(word: &AtomicU32, value: u32) {
    word.store(value, Relaxed);
    // Before the executor looks for the answer.
    fence(SeqCst);
}

/// Step 2, after step 1: whether an executor waits for the answer that stands in the page.
pub(crate) fn is_watched(word: &AtomicU32) -> bool {
    fence(SeqCst);
    word.load(Relaxed) != 0
}

impl WaitBell {
    /// How often it has been rung. A wait with this number ends at the next ring, also if that comes first.
    pub fn rung(&self) -> Rung {
        Rung(self.0.rung())
    }

    /// Ends the wait.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Step b: waits until one of `watches` has its answer, the bell is rung more often than `rung`, or at most for
    /// `timeout`.
    pub fn wait(&self, rung: Rung, watches: &[AnswerWatch], timeout: Option<Duration>) -> WaitEnd {
        let words = watches
            .iter()
            .map(|watch| (&watch.page.answer.number, watch.last.raw()));
        match wait_any((&self.0, rung.0), words, timeout) {
            Some(WaitedFor::Word(index)) => WaitEnd::Answer(index),
            Some(WaitedFor::Other) => WaitEnd::Other,
            None => WaitEnd::Unsupported,
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::answer::Answer;
    use crate::command::Command;
    use crate::pages::GuestPages;
    use crate::pool_side::{PoolGuestLink, PoolSide};
    use crate::thread_side::{GuestPoolLink, ThreadSide};

    /// Two vCPUs that sleep.
    fn sleepers() -> (PoolGuestLink, Vec<PoolSide>, Vec<ThreadSide>) {
        let (theirs, file) = GuestPages::create(2).expect("pages");
        let link = PoolGuestLink::new(GuestPages::accept(&file, 2).expect("accepted"));
        let (mut pool, mut threads) = (link.vcpus(), GuestPoolLink::new(theirs).vcpus());
        for (side, thread) in pool.iter_mut().zip(&mut threads) {
            assert!(side.watch().is_none(), "it does not sleep");
            side.give(&Command::Sleep).expect("given");
            assert_eq!(thread.wait(), Ok(Command::Sleep));
        }
        (link, pool, threads)
    }

    fn watches(pool: &[PoolSide]) -> Vec<AnswerWatch> {
        let all = pool.iter().map(|side| side.watch().expect("it sleeps"));
        all.collect()
    }

    #[test]
    fn the_first_of_several_vcpus_that_wakes_ends_the_wait_whether_before_or_after_its_begin() {
        for answers_first in [false, true] {
            let (_link, mut pool, mut threads) = sleepers();
            let (bell, watches) = (WaitBell::default(), watches(&pool));
            let rung = bell.rung();
            let mut second = threads.remove(1);
            let wakes = thread::spawn(move || {
                second.answer(&Answer::Woken).expect("commanded");
                second.was_watched()
            });
            let was_watched = answers_first.then(|| wakes.join().expect("it has answered"));
            while bell.wait(rung, &watches, None) != WaitEnd::Answer(1) {
                // The kernel may end a wait for no reason, and tells an answer that was there from one by its value.
                if pool[1].take_answer() == Ok(Some(Answer::Woken)) {
                    break;
                }
            }
            assert_ne!(was_watched, Some(false), "it need not report");
            drop(watches);
            assert!(!threads[0].is_watched());
        }
    }

    #[test]
    fn a_bell_ends_the_wait_also_if_it_was_rung_before() {
        let (_link, pool, threads) = sleepers();
        let (bell, watches) = (WaitBell::default(), watches(&pool));
        assert!(threads[0].is_watched());
        let rung = bell.rung();
        bell.ring();
        assert_eq!(bell.wait(rung, &watches, None), WaitEnd::Other);
    }

    #[test]
    fn a_wait_has_an_end_and_that_of_the_process_is_one() {
        let (link, pool, _threads) = sleepers();
        let (bell, watches) = (WaitBell::default(), watches(&pool));
        let moment = Some(Duration::from_millis(1));
        assert_eq!(bell.wait(bell.rung(), &watches, moment), WaitEnd::Other);
        link.hang_up();
        // The word has another value by now, which the kernel does not attribute to a word.
        assert_ne!(bell.wait(bell.rung(), &watches, None), WaitEnd::Unsupported);
    }
}
