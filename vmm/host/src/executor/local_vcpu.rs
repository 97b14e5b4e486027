//! A vCPU of this process that has been taken from the pool, with its id in the policy and the ways to its own
//! threads.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use baton_machine::{Exit, Vcpu};
use baton_os::sys;
use vcpu_sched::{CpuId, Decision, Hints, Ns, VcpuId};

use super::handoff::Handoff;
use super::interrupt_sleep::InterruptSleep;
use super::policy_ids::PolicyIds;

/// The threads that one vCPU has besides the executors. They end with the vCPU's guest; what is sent there
/// afterwards comes back. This is all that the pool knows of the place where a vCPU sleeps, or runs if not on
/// an executor's thread.
pub(crate) trait VcpuThreads: InterruptSleep {
    /// Sends the vCPU to the thread that runs it. False: there is no such thread, or it has failed.
    fn run(&self, request: RunRequest) -> bool;

    /// Puts the halted vCPU to sleep. It comes back by `Pool::end_sleep`.
    fn begin_sleep(&self, vcpu: LocalVcpu);
}

/// A vCPU in the hands of its one owner: the pool, an executor, the thread on which it runs or sleeps, or work
/// on its way there. There is one of these for each vCPU, so no vCPU runs twice at once.
pub(crate) struct LocalVcpu {
    id: VcpuId,
    ids: PolicyIds,
    threads: Arc<dyn VcpuThreads>,
    /// Steal time that the guest has been shown of it, ns.
    steal_shown: Ns,
    /// For how long it had waited for a CPU or a budget when it was picked last, ns.
    waited_before: Ns,
    vcpu: Box<Vcpu>,
}

impl LocalVcpu {
    /// `vcpu`, which the policy calls `id`, as one of the vCPUs `ids` of its guest.
    pub(crate) fn new(
        id: VcpuId,
        ids: PolicyIds,
        vcpu: Box<Vcpu>,
        threads: Arc<dyn VcpuThreads>,
    ) -> Self {
        Self {
            id,
            ids,
            threads,
            steal_shown: 0,
            waited_before: 0,
            vcpu,
        }
    }

    /// Its id in the policy.
    pub(crate) fn id(&self) -> VcpuId {
        self.id
    }

    /// The policy's ids of its guest.
    pub(crate) fn ids(&self) -> &PolicyIds {
        &self.ids
    }

    /// The ways to its threads.
    pub(crate) fn threads(&self) -> &Arc<dyn VcpuThreads> {
        &self.threads
    }

    /// A copy of its hint record, or what the host infers, in the policy's terms.
    pub(crate) fn hints(&mut self) -> Hints {
        let snapshot = self.vcpu.hints(sys::monotonic_ns());
        self.ids.hints(snapshot)
    }

    /// The same of a vCPU that has halted.
    pub(crate) fn hints_of_halted(&mut self) -> Hints {
        let snapshot = self.vcpu.hints_of_halted(sys::monotonic_ns());
        self.ids.hints(snapshot)
    }

    /// Shows the guest its steal time since it joined: it has `waited` ns for a CPU or a budget, and the host took
    /// `host_steal` ns of its time on a CPU.
    pub(crate) fn show_steal(&mut self, waited: Ns, host_steal: Ns) {
        let stolen = waited + host_steal;
        let shown = std::mem::replace(&mut self.steal_shown, stolen);
        let since = stolen.saturating_sub(shown);
        // A gap of a second or more was shown as soon as it ended, and is part of the host steal of its run.
        let more = since.saturating_sub(self.steal_shown_in_run);
        self.steal_shown_in_run -= since - more;
        self.guest.hints.add_steal(self.index, more);
        self.guest.steal.add(self.index, more);
        let before = std::mem::replace(&mut self.waited_before, waited);
        self.gaps.waited(waited.saturating_sub(before));
    }

    /// Requests a doorbell for `reasons` of the guest, since the vCPU runs as `decision` has it.
    pub(crate) fn request_ring(&self, reasons: u32, decision: &Decision) {
        // The donor waits for this vCPU, and edges never leave a guest.
        let donor = self.ids.to_guest(decision.donor).unwrap_or(0);
        let hints = &self.guest.hints;
        hints.set_ring(self.index, reasons, decision.lock, donor);
    }

    /// The vCPU without its id.
    pub(crate) fn into_vcpu(self) -> Box<Vcpu> {
        self.vcpu
    }
}

impl Deref for LocalVcpu {
    type Target = Vcpu;

    fn deref(&self) -> &Vcpu {
        &self.vcpu
    }
}

impl DerefMut for LocalVcpu {
    fn deref_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }
}

/// A vCPU to run for an executor on another thread.
pub(crate) struct RunRequest {
    pub(crate) vcpu: LocalVcpu,
    /// When the policy's decision ends, ns.
    pub(crate) until: Option<u64>,
    /// The executor's CPU.
    pub(crate) cpu: CpuId,
    /// The same as the host numbers it.
    pub(crate) host_cpu: usize,
    pub(crate) answer: Answer,
}

/// A vCPU that has left the guest.
pub(crate) struct FinishedRun {
    pub(crate) vcpu: LocalVcpu,
    pub(crate) exit: Exit,
    /// CPU time that other threads than the executor's spent on it, ns.
    pub(crate) elsewhere_ns: u64,
}

/// Where the vCPU comes back. Closed if the vCPU's thread fails, so that the executor does not wait.
pub(crate) struct Answer(Option<Handoff<FinishedRun>>);

impl Answer {
    pub(crate) fn to(executor: Handoff<FinishedRun>) -> Self {
        Self(Some(executor))
    }

    pub(crate) fn give(mut self, run: FinishedRun) {
        if let Some(executor) = self.0.take() {
            // If the executor does not take it, the run has ended.
            let _ = executor.put(run);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(executor) = self.0.take() {
            executor.close();
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_executor_does_not_wait_for_the_answer_of_a_thread_that_has_failed() {
        let executor = Handoff::new();
        let thread = thread::spawn({
            let answer = Answer::to(executor.clone());
            move || drop(answer)
        });
        assert!(executor.take().is_none());
        assert!(thread.join().is_ok());
    }
}
