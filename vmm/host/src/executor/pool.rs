//! The pool: the policy and the vCPUs that nothing runs, under one lock, and the ways to everything
//! that has to be reached when they change.
//!
//! No system call is made under the lock: kicks, sleeps and the like are collected ([`AfterUnlock`])
//! and done once it is free ([`Pool::finish`]).

use std::sync::Arc;

use baton_machine::{GuestRecord, Vcpu};
use baton_os::sys;
use vcpu_sched::{CpuId, CpuTime, Grant, Ns, VcpuId, WorkerId, WorkerOrder};

use super::after_unlock::AfterUnlock;
use super::cpu_grant::GrantInbox;
use super::kick_target::KickTarget;
use super::owned_vcpu::OwnedVcpu;
use super::pins::PinChanges;
use super::pool_guest::NewGuest;
use super::pool_state::PoolState;
use super::probes::PoolPolicy;
use super::usable_cpus::UsableCpus;
use crate::halt::ThreadPriority;
use crate::sync::{Mutex, MutexGuard};

/// The threads on which halted vCPUs sleep. Made after the pool, because they call back into it.
pub(crate) trait HaltThreads: Send + Sync {
    /// Puts a halted vCPU to sleep; it comes back by [`Pool::end_sleep`].
    fn begin_sleep(&self, vcpu: OwnedVcpu);
    /// Ends the sleep of `id`.
    fn interrupt_sleep(&self, id: VcpuId);
}

/// The pool.
pub(crate) struct Pool {
    state: Mutex<PoolState>,
    /// Of the executors, in the policy's order.
    kick_targets: Vec<KickTarget>,
    /// The host CPUs, in the policy's order.
    host_cpus: Arc<[usize]>,
    pub(crate) pins: PinChanges,
    /// Which of the host CPUs can still be used.
    pub(crate) usable_cpus: UsableCpus,
    /// Of the device threads, in the policy's order.
    grant_inboxes: Vec<Arc<GrantInbox>>,
    /// The priorities of the threads.
    pub(crate) priority: ThreadPriority,
    /// `None` where vCPUs cannot sleep, and once the pool is closing.
    halt_threads: Mutex<Option<Arc<dyn HaltThreads>>>,
}

impl Pool {
    pub(crate) fn new(
        sched: PoolPolicy,
        guests: Vec<NewGuest>,
        vcpus: impl Iterator<Item = Box<Vcpu>>,
        host_cpus: Arc<[usize]>,
        priority: ThreadPriority,
    ) -> Self {
        let cpus = sched.config().cpus;
        let workers: usize = guests.iter().map(|guest| guest.workers.len()).sum();
        Self {
            state: Mutex::new(PoolState::new(sched, guests, vcpus)),
            kick_targets: (0..cpus).map(|_| KickTarget::new()).collect(),
            host_cpus,
            pins: PinChanges::default(),
            usable_cpus: UsableCpus::default(),
            priority,
            grant_inboxes: (0..workers).map(|_| Arc::default()).collect(),
            halt_threads: Mutex::new(None),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }

    /// The way to kick the executor of `cpu`.
    pub(crate) fn kick_target(&self, cpu: CpuId) -> &KickTarget {
        &self.kick_targets[cpu.index()]
    }

    /// The host CPUs, in the policy's order.
    pub(crate) fn host_cpus(&self) -> &[usize] {
        &self.host_cpus
    }

    /// Where the policy's orders for `worker` arrive.
    pub(crate) fn grant_inbox(&self, worker: WorkerId) -> &Arc<GrantInbox> {
        &self.grant_inboxes[worker.index()]
    }

    /// Gives halted vCPUs threads to sleep on, or takes them away: what sleeps there comes back.
    pub(crate) fn set_halt_threads(&self, halt_threads: Option<Arc<dyn HaltThreads>>) {
        let before = std::mem::replace(&mut *self.halt_threads.lock(), halt_threads);
        // Not under the lock: what sleeps there comes back to the pool now.
        drop(before);
    }

    /// Does what was put off while the lock was held.
    pub(crate) fn finish(&self, after: AfterUnlock) {
        for cpu in after.kicks.iter() {
            self.kick_target(cpu).kick();
        }
        for &order in &after.worker_orders {
            let (WorkerOrder::Work(Grant { worker, .. }) | WorkerOrder::Stop(worker)) = order;
            self.grant_inbox(worker).receive(order);
        }
        for vcpu in after.ended {
            vcpu.discard();
        }
        if after.interrupts.is_empty() && after.to_sleep.is_none() {
            return;
        }
        let halt_threads = self.halt_threads.lock().clone();
        match (halt_threads, after.to_sleep) {
            (Some(halt_threads), to_sleep) => {
                if let Some(vcpu) = to_sleep {
                    halt_threads.begin_sleep(vcpu);
                }
                for id in after.interrupts {
                    halt_threads.interrupt_sleep(id);
                }
            }
            // The pool is closing: the vCPU only has to be kept.
            (None, Some(vcpu)) => self.end_sleep(vcpu, 0),
            (None, None) => {}
        }
    }

    /// A vCPU comes back from its sleep on the calling thread, because it woke or was interrupted. The
    /// thread has used `spent` ns of CPU time for that, which are charged to the vCPU.
    pub(crate) fn end_sleep(&self, vcpu: OwnedVcpu, spent: Ns) {
        let here = self.current_cpu();
        let after = {
            let mut state = self.lock();
            let now = sys::monotonic_ns();
            state
                .sched
                .charge_sleep(vcpu.id(), CpuTime(spent), here, now);
            state.end_sleep(vcpu, now);
            state.after_unlock()
        };
        self.finish(after);
    }

    /// The policy's number for the host CPU that the calling thread is on; `None` if that is not one of
    /// the pool's.
    fn current_cpu(&self) -> Option<CpuId> {
        let host_cpu = sys::current_cpu();
        let number = self.host_cpus.iter().position(|&cpu| cpu == host_cpu)?;
        Some(CpuId(number as u32))
    }

    /// Wakes the vCPUs that start a guest. If vCPUs `can_sleep` in `KVM_RUN`, those that wait to be
    /// started do.
    pub(crate) fn begin(&self, starters: &[VcpuId], can_sleep: bool) {
        let (unstarted, after) = {
            let mut state = self.lock();
            let unstarted = state.begin(starters, can_sleep, sys::monotonic_ns());
            (unstarted, state.after_unlock())
        };
        for vcpu in unstarted {
            self.finish(AfterUnlock::default().and_sleep(Some(vcpu)));
        }
        self.finish(after);
    }

    /// Stops the executors, which put their vCPUs back and end.
    pub(crate) fn stop(&self) {
        self.lock().stop();
        for target in &self.kick_targets {
            target.kick();
        }
        for inbox in &self.grant_inboxes {
            inbox.close();
        }
    }

    /// `guest` has ended: its vCPUs leave the policy, wherever they are.
    pub(crate) fn remove_guest(&self, guest: &GuestRecord) {
        let (after, workers) = {
            let mut state = self.lock();
            let after = state.remove_guest(guest.number);
            (after, state.guest(guest.number).workers.clone())
        };
        for worker in workers {
            self.grant_inbox(worker).close();
        }
        self.finish(after);
    }
}

#[cfg(test)]
mod tests;
