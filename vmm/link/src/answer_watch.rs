//! Waiting for vCPUs that sleep, several at once.
//!
//! A vCPU's thread that has woken reports that by the wake file of its guest, which is read by a thread of the pool.
//! An executor that has nothing to run can wait for the answers themselves instead, which is one thread less on the
//! way. While it does, the report is not needed.
//!
//! ```text
//!   the vCPU's thread                             the executor
//!   1. the number of the answer                   a. watched = 1
//!   2. wakes whoever waits for that word          b. waits until the word has another number, or the bell is rung
//!   3. watched = 0? reports by the wake file      c. watched = 0
//!                                                 d. looks for the answer
//! ```
//!
//! Each side writes its own word before it reads the other's. So if step 3 finds the watch, step d finds the answer.
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

/// Step 3, after step 1: whether an executor waits for the answer that stands in the page.
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
