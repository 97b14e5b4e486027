//! A condition variable.

use crate::cpu::Cpu;
use crate::lock::{Lock, Mode};
use crate::locks::Tas;
use crate::mutex::Mutex;
use crate::wait_queue::WaitQueue;
use crate::{preempt, tasks};

/// A condition that tasks wait for under a mutex. The host learns nothing about these waits: no vCPU is
/// known that must run before the condition becomes true.
pub struct Condition {
    guard: Tas,
    waiters: WaitQueue,
}

impl Condition {
    /// A condition for which no task waits.
    pub const fn new() -> Self {
        Self {
            guard: Tas::new(),
            waiters: WaitQueue::new(),
        }
    }

    /// Releases the mutex, sleeps until a signal, and takes it again.
    pub fn wait<M: Mode>(&self, cpu: &Cpu, mutex: &Mutex) {
        self.guard.lock::<M>(cpu);
        self.waiters.push(tasks::current(cpu));
        self.guard.unlock::<M>(cpu);
        mutex.unlock::<M>(cpu);
        tasks::sleep(cpu, None);
        mutex.lock::<M>(cpu);
    }

    /// Wakes the task that has waited longest.
    pub fn signal<M: Mode>(&self, cpu: &Cpu) {
        // Only this vCPU wakes a task that it has removed from the queue, so it must not be preempted
        // in between.
        preempt::disable();
        self.guard.lock::<M>(cpu);
        let first = self.waiters.pop();
        self.guard.unlock::<M>(cpu);
        if let Some(task) = first {
            tasks::wake(cpu, task);
        }
        preempt::enable(cpu);
    }
}
