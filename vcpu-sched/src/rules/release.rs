//! Release: the holder that ran on a waiter's budget has let go, or has handed its lock to a
//! sleeper.

use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Wait, WaitKind};
use crate::state::contexts::ExecState;

impl<E: Events> Scheduler<E> {
    /// The vCPU that runs on `cpu` has released the lock for which it was carried. The vCPUs that waited
    /// for it now wait for `to`, which has the lock, or for none if that is not known. Call before
    /// [`Scheduler::stop`]; the `pick` that follows gives the donor its CPU back, or carries `to`.
    pub fn release(&mut self, cpu: CpuId, to: Option<VcpuId>, now: Ns) {
        let Some(running) = self.cpus.get(cpu.index()).and_then(|c| c.running) else {
            return;
        };
        let from = running.curr;
        if running.donor == from {
            return;
        }
        let to = to.filter(|to| {
            *to != from
                && self
                    .vcpus
                    .get(to.index())
                    .is_some_and(|v| v.guest == self.vcpus[from.index()].guest)
        });
        self.pass_on(from, running.lock, to, now);
    }

    /// What runs on `cpu` wakes `vcpu`. If that sleeps for a lock of the waker, it now has the lock:
    /// this is the only reason for which the holder itself would wake it (a guest that does it for
    /// another one is corrected by what its vCPUs say when they stop). So the others who wait for
    /// the same lock now wait for `vcpu`; without this, their budgets would go on carrying a vCPU
    /// that cannot help them.
    pub fn wake_by(&mut self, cpu: CpuId, vcpu: VcpuId, now: Ns) {
        let running = self.cpus.get(cpu.index()).and_then(|c| c.running);
        let handed = running.and_then(|running| {
            let sleeps = self.vcpus.get(vcpu.index())?.ec.state == ExecState::Halted;
            let wait = self.blocked_on.edge(vcpu).filter(|_| sleeps)?;
            let mine = wait.kind == WaitKind::Block && wait.holder == running.curr;
            mine.then_some(wait.lock)
        });
        if let Some(lock) = handed {
            self.hand_over(cpu, lock, vcpu, now);
        }
        self.wake(vcpu, now);
    }

    /// What runs on `cpu` has handed `lock` to `to`, whether it was carried or not: those who wait
    /// for it with that lock now wait for `to`. It may run on; if it was carried for this lock, its
    /// CPU is kicked.
    pub fn hand_over(&mut self, cpu: CpuId, lock: u64, to: VcpuId, now: Ns) {
        let Some(running) = self.cpus.get(cpu.index()).and_then(|c| c.running) else {
            return;
        };
        let (from, guest) = (running.curr, self.vcpus[running.curr.index()].guest);
        let sibling = self.vcpus.get(to.index()).is_some_and(|v| v.guest == guest);
        if to == from || !sibling {
            return;
        }
        self.pass_on(from, lock, Some(to), now);
        // Claims that were set aside until the old holder stops can now carry the new one.
        self.look_again(from, now);
        if running.donor != from && running.lock == lock {
            // Its donor waits for another one now.
            self.kick(cpu, now);
        }
        self.check();
    }

    /// The vCPUs that wait for `from` because of `lock` now wait for `to`, or for none.
    fn pass_on(&mut self, from: VcpuId, lock: u64, to: Option<VcpuId>, now: Ns) {
        let mut next = self.blocked_on.first_waiter(from);
        while let Some(waiter) = next {
            next = self.blocked_on.next_waiter(waiter);
            let Some(wait) = self.blocked_on.edge(waiter).filter(|w| w.lock == lock) else {
                continue;
            };
            match to.filter(|&to| to != waiter) {
                Some(to) => {
                    let holder_releases = self.vcpus[to.index()].ec.hints.releases;
                    let wait = Wait {
                        holder: to,
                        holder_releases,
                        ..wait
                    };
                    self.blocked_on.set(waiter, wait);
                    self.emit(now, Event::EdgeOn { waiter, holder: to });
                }
                None => self.drop_edge(waiter, now),
            }
        }
    }
}
