//! A queue of tasks that wait, first in, first out.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::tasks::{self, NO_TASK, TaskId};

/// Linked through [`tasks::Task::next`]. Used under its owner's lock, except for [`WaitQueue::first`], whose
/// result may be outdated without the lock.
pub struct WaitQueue {
    head: AtomicU32,
    tail: AtomicU32,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self {
            head: AtomicU32::new(NO_TASK),
            tail: AtomicU32::new(NO_TASK),
        }
    }

    /// Appends a task, parked.
    pub fn push(&self, task: TaskId) {
        let this = tasks::get(task);
        this.next.store(NO_TASK, Relaxed);
        this.parked.store(1, Relaxed);
        let last = self.tail.load(Relaxed);
        this.before.store(last, Relaxed);
        match last {
            NO_TASK => self.head.store(task, Relaxed),
            last => tasks::get(last).next.store(task, Relaxed),
        }
        self.tail.store(task, Relaxed);
    }

    /// Removes the first task.
    pub fn pop(&self) -> Option<TaskId> {
        let task = self.head.load(Relaxed);
        if task == NO_TASK {
            return None;
        }
        let next = tasks::get(task).next.load(Relaxed);
        self.head.store(next, Relaxed);
        if next == NO_TASK {
            self.tail.store(NO_TASK, Relaxed);
        }
        Some(task)
    }

    /// The first task, or [`NO_TASK`].
    pub fn first(&self) -> TaskId {
        self.head.load(Relaxed)
    }

    /// Whether no task waits.
    pub fn is_empty(&self) -> bool {
        self.first() == NO_TASK
    }
}
