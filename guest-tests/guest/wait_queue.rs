//! Tasks that wait, in the order in which they came.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::tasks::{self, NOBODY, TaskId};

/// Linked through [`tasks::Task::next`]. Used under a lock; only [`WaitQueue::first`] may be read without,
/// by who can do with a guess.
pub struct WaitQueue {
    head: AtomicU32,
    tail: AtomicU32,
}

impl WaitQueue {
    pub const fn new() -> Self {
        Self {
            head: AtomicU32::new(NOBODY),
            tail: AtomicU32::new(NOBODY),
        }
    }

    /// Puts a task at the end, parked.
    pub fn push(&self, task: TaskId) {
        let this = tasks::get(task);
        this.next.store(NOBODY, Relaxed);
        this.parked.store(1, Relaxed);
        let last = self.tail.load(Relaxed);
        this.before.store(last, Relaxed);
        match last {
            NOBODY => self.head.store(task, Relaxed),
            last => tasks::get(last).next.store(task, Relaxed),
        }
        self.tail.store(task, Relaxed);
    }

    pub fn pop(&self) -> Option<TaskId> {
        let task = self.head.load(Relaxed);
        if task == NOBODY {
            return None;
        }
        let next = tasks::get(task).next.load(Relaxed);
        self.head.store(next, Relaxed);
        if next == NOBODY {
            self.tail.store(NOBODY, Relaxed);
        }
        Some(task)
    }

    pub fn first(&self) -> TaskId {
        self.head.load(Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.first() == NOBODY
    }
}
