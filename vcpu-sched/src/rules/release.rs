//! Release: a holder has released its lock, or has handed it to a waiter. The edges move with the lock.

use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::blocked_on::{Wait, WaitKind};
use crate::state::contexts::ExecState;

impl<E: Events> Scheduler<E> {
    /// The vCPU that runs on `cpu` has released the lock for which it was carried. The vCPUs that waited
    /// for it because of that lock now wait for `to`, which has the lock, or for none if that is not known.
    /// Call this before [`Scheduler::stop`]. The `pick` that follows gives the donor its CPU back, or
    /// carries `to`.
    pub fn release(&mut self, cpu: CpuId, to: Option<VcpuId>, now: Ns) {
        let Some(&running) = self.cpus.running(cpu) else {
            return;
        };
        let from = running.curr;
        if running.donor == from || running.suspect {
            return;
        }
        let to = to.filter(|&to| to != from && self.same_guest(from, to));
        self.pass_on(from, running.lock, to, now);
    }

    /// What runs on `cpu` wakes `vcpu`. If `vcpu` sleeps for a lock of the waker, it now has that lock: for
    /// no other reason would the holder itself wake it. (A guest that wakes for another reason is corrected
    /// when its vCPUs next publish what they wait for.) So the other vCPUs that wait for the same lock now
    /// wait for `vcpu`. Without this, they would go on carrying a vCPU that cannot help them.
    pub fn wake_by(&mut self, cpu: CpuId, vcpu: VcpuId, now: Ns) {
        let handed = self.cpus.running(cpu).and_then(|running| {
            let sleeps = self.vcpus.get(vcpu)?.ec.state == ExecState::Halted;
            let wait = self.blocked_on.edge(vcpu).filter(|_| sleeps)?;
            let by_holder = wait.kind == WaitKind::Block && wait.holder == running.curr;
            by_holder.then_some(wait.lock)
        });
        if let Some(lock) = handed {
            self.hand_over(cpu, lock, vcpu, now);
        }
        self.wake(vcpu, now);
    }

    /// The vCPU that runs on `cpu` has handed `lock` to `to`, whether it was carried or not. The vCPUs that
    /// wait for it because of that lock now wait for `to`. It may run on; if it was carried for this lock,
    /// its CPU is kicked.
    pub fn hand_over(&mut self, cpu: CpuId, lock: u64, to: VcpuId, now: Ns) {
        let Some(&running) = self.cpus.running(cpu) else {
            return;
        };
        let from = running.curr;
        if to == from || !self.same_guest(from, to) {
            return;
        }
        self.pass_on(from, lock, Some(to), now);
        // What was parked until the old holder stops can now carry the new one.
        self.unpark_all(from, now);
        if running.donor != from && !running.suspect && running.lock == lock {
            // Its donor waits for another vCPU now.
            self.kick(cpu, now);
        }
        self.check();
    }

    /// The vCPUs that wait for `from` because of `lock` now wait for `to`, or for none.
    fn pass_on(&mut self, from: VcpuId, lock: u64, to: Option<VcpuId>, now: Ns) {
        let mut next = self.blocked_on.first_waiter(from);
        while let Some(waiter) = next {
            next = self.blocked_on.next_waiter(waiter);
            let names = |wait: &Wait| !wait.is_suspicion() && wait.lock == lock;
            let Some(wait) = self.blocked_on.edge(waiter).filter(names) else {
                continue;
            };
            match to.filter(|&to| to != waiter) {
                Some(holder) => {
                    let holder_releases = self.vcpus[holder].ec.hints.releases;
                    let wait = Wait {
                        holder,
                        holder_releases,
                        ..wait
                    };
                    self.blocked_on.set(waiter, wait);
                    self.emit_edge_on(waiter, wait, now);
                }
                None => self.drop_edge(waiter, now),
            }
            self.end_visit(waiter, now);
        }
    }
}
