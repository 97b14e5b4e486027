//! Release: the holder that ran on a waiter's budget has let go.

use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;

impl<E: Events> Scheduler<E> {
    /// What runs on `cpu` has released the lock for which it was carried. Those who waited for it
    /// now wait for `to`, who has the lock, or for nobody if that is not known. Call before
    /// [`Scheduler::stop`]; the `pick` that follows gives the donor its CPU back, or carries `to`.
    pub fn release(&mut self, cpu: CpuId, to: Option<VcpuId>, now: Ns) {
        let Some(running) = self.cpus.get(cpu.index()).and_then(|c| c.running) else {
            return;
        };
        let from = running.run;
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
        let mut next = self.blocked_on.first_waiter(from);
        while let Some(waiter) = next {
            next = self.blocked_on.next_waiter(waiter);
            let Some(wait) = self
                .blocked_on
                .edge(waiter)
                .filter(|w| w.lock == running.lock)
            else {
                continue;
            };
            match to.filter(|&to| to != waiter) {
                Some(to) => {
                    let holder_releases = self.vcpus[to.index()].ec.hints.releases;
                    let wait = crate::blocked_on::Wait {
                        holder: to,
                        holder_releases,
                        ..wait
                    };
                    self.blocked_on.set(waiter, wait);
                    self.tell(now, Event::EdgeOn { waiter, holder: to });
                }
                None => self.drop_edge(waiter, now),
            }
        }
    }
}
