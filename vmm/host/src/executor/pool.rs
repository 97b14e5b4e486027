//! The pool: the policy and the vCPUs that nothing runs, under one lock, and the ways to everything
//! that has to be reached when they change.
//!
//! No system call is made under the lock: kicks, sleeps and the like are collected ([`AfterUnlock`])
//! and done once it is free ([`Pool::finish`]).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use baton_machine::GuestRecord;
use baton_observe::trace::JoinedNames;
use baton_os::sys;
use vcpu_sched::{CpuId, CpuSet, CpuTime, GuestId, Ns};

use super::after_unlock::AfterUnlock;
use super::foreign_table::ForeignTable;
use super::kick_target::KickTarget;
use super::owned_vcpu::OwnedVcpu;
use super::pins::PinChanges;
use super::pool_settings::PoolSettings;
use super::pool_state::PoolState;
use super::probes::PoolPolicy;
use super::usable_cpus::UsableCpus;
use crate::halt::ThreadPriority;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The pool.
pub(crate) struct Pool {
    state: Mutex<PoolState>,
    /// Notified when something has changed for which a thread waits ([`Pool::wait_until`]).
    changed: Condvar,
    /// Of the executors, in the policy's order.
    kick_targets: Vec<KickTarget>,
    /// The host CPUs that the pool has or can get, in the policy's order.
    host_cpus: Arc<[usize]>,
    pub(crate) pins: PinChanges,
    /// Which of the host CPUs can still be used.
    pub(crate) usable_cpus: UsableCpus,
    pub(crate) settings: PoolSettings,
    /// The guests of other processes.
    pub(crate) foreign: ForeignTable,
    /// Where the names of vCPUs are left for the trace that join while others run.
    pub(crate) joined_names: Option<Arc<JoinedNames>>,
    /// Whether halts end a run on all threads of vCPUs that run there.
    pub(crate) own_threads_detect_halts: Arc<AtomicBool>,
    /// The priorities of the threads.
    pub(crate) priority: ThreadPriority,
}

impl Pool {
    /// A pool of `host_cpus` without guests.
    pub(crate) fn new(sched: PoolPolicy, host_cpus: Arc<[usize]>, settings: PoolSettings) -> Self {
        let cpus = sched.config().cpus;
        Self {
            state: Mutex::new(PoolState::new(sched)),
            changed: Condvar::new(),
            kick_targets: (0..cpus).map(|_| KickTarget::new()).collect(),
            host_cpus,
            pins: PinChanges::default(),
            usable_cpus: UsableCpus::default(),
            priority: settings.priority,
            foreign: ForeignTable::default(),
            joined_names: None,
            own_threads_detect_halts: Arc::new(AtomicBool::new(true)),
            settings,
        }
    }

    /// The same, with a trace for which names are left in `joined_names`.
    pub(crate) fn with_trace(self, joined_names: Option<Arc<JoinedNames>>) -> Self {
        Self {
            joined_names,
            ..self
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }

    /// Changes the state by `change` at the current time, and does what follows. For threads that are less urgent
    /// than executors: the calling thread is not preempted while it holds the lock.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut PoolState, Ns) -> T) -> T {
        let _not_preempted = self.priority.not_preempted();
        let (value, after) = {
            let mut state = self.lock();
            let value = change(&mut state, sys::monotonic_ns());
            (value, state.after_unlock())
        };
        self.finish(after);
        value
    }

    /// Waits until `is_so` returns something. It is called under the lock whenever the guest `id` has changed.
    /// Begins with [`PoolState::wait_for`], in the critical section in which `id` was found: from then on `id`
    /// keeps its meaning until this returns.
    pub(crate) fn wait_until<T>(
        &self,
        id: GuestId,
        mut is_so: impl FnMut(&mut PoolState) -> Option<T>,
    ) -> T {
        let _not_preempted = self.priority.not_preempted();
        let mut state = self.lock();
        let value = loop {
            if let Some(value) = is_so(&mut state) {
                break value;
            }
            state = self.changed.wait(state);
        };
        state.waited_for(id, sys::monotonic_ns());
        let after = state.after_unlock();
        drop(state);
        self.finish(after);
        value
    }

    /// The way to kick the executor of `cpu`.
    pub(crate) fn kick_target(&self, cpu: CpuId) -> &KickTarget {
        &self.kick_targets[cpu.index()]
    }

    /// The CPUs that the pool has at the moment.
    pub(crate) fn members(&self) -> CpuSet {
        let _not_preempted = self.priority.not_preempted();
        self.lock().sched.pool_cpus()
    }

    /// The host CPUs that the pool has at the moment, ascending.
    pub(crate) fn member_cpus(&self) -> Vec<usize> {
        let members = self.members().iter();
        let mut cpus: Vec<usize> = members.map(|cpu| self.host_cpus[cpu.index()]).collect();
        cpus.sort_unstable();
        cpus
    }

    /// The host CPUs that the pool has or can get, in the policy's order.
    pub(crate) fn host_cpus(&self) -> &Arc<[usize]> {
        &self.host_cpus
    }

    /// Does what was put off while the lock was held.
    pub(crate) fn finish(&self, after: AfterUnlock) {
        for cpu in after.kicks.iter() {
            self.kick_target(cpu).kick();
        }
        for (inbox, order) in after.worker_orders {
            inbox.receive(order);
        }
        if after.wakes_waiters {
            self.changed.notify_all();
        }
        for vcpu in after.ended {
            vcpu.discard();
        }
        if let Some(vcpu) = after.to_sleep {
            vcpu.begin_sleep();
        }
        for (_, sleep) in after.interrupts {
            sleep.interrupt_sleep();
        }
        drop(after.forgotten);
    }

    /// A vCPU comes back from its sleep, because it woke or was interrupted. The thread on which it slept has used
    /// `spent` ns of CPU time for that, which are charged to the vCPU. That thread is the calling one, unless it is
    /// in another process.
    pub(crate) fn end_sleep(&self, vcpu: OwnedVcpu, spent: Ns) {
        let here = match &vcpu {
            OwnedVcpu::Local(_) => self.current_cpu(),
            // Where it has halted is the best guess.
            OwnedVcpu::Foreign(vcpu) => vcpu.last_cpu,
        };
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

    /// Charges CPU time of `spent` ns to the vCPU with index `index` of the guest of `record`, if the guest is still
    /// in the pool.
    pub(crate) fn charge_rest(&self, record: &GuestRecord, index: u32, spent: Ns) {
        if spent == 0 {
            return;
        }
        self.change(|state, now| {
            // By its record, because its ids may be those of another guest by now.
            let id = state.guests.of_record(record);
            let guest = id.and_then(|id| state.guests.get(id));
            if let Some(vcpu) = guest.and_then(|guest| guest.ids().to_policy(index)) {
                state.charge_rest(vcpu, spent, now);
            }
        });
    }

    /// The policy's number for the host CPU that the calling thread is on; `None` if that is not one of
    /// the pool's.
    fn current_cpu(&self) -> Option<CpuId> {
        let host_cpu = sys::current_cpu();
        let number = self.host_cpus.iter().position(|&cpu| cpu == host_cpu)?;
        Some(CpuId(number as u32))
    }

    /// Puts vCPUs to sleep that the table has on halt threads.
    pub(crate) fn let_sleep(&self, vcpus: Vec<OwnedVcpu>) {
        for vcpu in vcpus {
            self.finish(AfterUnlock::default().and_sleep(Some(vcpu)));
        }
    }

    /// Stops the executors, which put their vCPUs back and end.
    pub(crate) fn stop(&self) {
        let inboxes = self.change(|state, _| state.stop());
        for target in &self.kick_targets {
            target.kick();
        }
        for inbox in inboxes {
            inbox.close();
        }
    }

    /// The guest of `record` has ended: its vCPUs leave the policy, wherever they are. Does nothing if they have
    /// before.
    pub(crate) fn remove_guest(&self, record: &GuestRecord) {
        let (after, inboxes) = {
            let mut state = self.lock();
            let inboxes = state.remove_guest(record);
            (state.after_unlock(), inboxes)
        };
        for inbox in inboxes {
            inbox.close();
        }
        self.finish(after);
    }
}

#[cfg(test)]
mod tests;
