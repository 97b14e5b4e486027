//! What a guest is shown of its vCPUs, in their hint pages and steal time records, by their own threads.
//!
//! In one process, executors show it when they switch from one vCPU to another, and a vCPU that runs on is not
//! shown as stopped. Here nobody can write to the guest's memory after the vCPU's thread has given its answer. So
//! each answer shows the vCPU as stopped, also if the pool lets it run on at once.

use baton_abi::hints::{RING_DEFER, RING_DONATED};
use baton_link::answer::Answer;
use baton_link::command::{Donated, RunCommand};
use baton_machine::{Doorbell, Vcpu};
use vcpu_sched::Ns;

/// What the guest was shown of one vCPU.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Steal time since the vCPU joined its current pool, ns.
    stolen_ns: Ns,
    /// Steal time under all pools, ns.
    pub(super) all_stolen_ns: Ns,
    /// Whether the last run ended against the vCPU's will.
    was_preempted: bool,
    /// Preemptions so far: runs that ended against the vCPU's will, after which it waited.
    pub(super) preemptions: u64,
}

impl Shown {
    /// The vCPU has joined a pool, which counts its steal time from now on.
    pub(super) fn begin_pool(&mut self) {
        self.stolen_ns = 0;
        self.was_preempted = false;
    }

    /// Another vCPU takes the place of the one that was shown so far.
    pub(super) fn begin_vcpu(&mut self) {
        self.was_preempted = false;
    }

    /// `vcpu` runs as `run` commands.
    pub(super) fn begin_run(&mut self, vcpu: &mut Vcpu, run: &RunCommand) {
        let (guest, index) = (&vcpu.guest, vcpu.index);
        let more = run.stolen_ns.saturating_sub(self.stolen_ns);
        self.stolen_ns = run.stolen_ns;
        let was_preempted = std::mem::take(&mut self.was_preempted);
        if more > 0 {
            self.all_stolen_ns += more;
            guest.hints.add_steal(index, more);
            guest.steal.add(index, more);
            vcpu.gaps.waited(more);
            if was_preempted {
                self.preemptions += 1;
                guest.hints.count_preemption(index);
            }
        }
        show_running(vcpu);
        let donated = run.donated.map_or(0, |_| RING_DONATED);
        let deferred = if run.is_deferred { RING_DEFER } else { 0 };
        let Donated { donor, lock } = run.donated.unwrap_or(Donated { donor: 0, lock: 0 });
        let hints = &vcpu.guest.hints;
        hints.set_ring(vcpu.index, donated | deferred, lock, donor);
    }

    /// `vcpu` has run, and gives `answer`.
    pub(super) fn end_run(&mut self, vcpu: &Vcpu, answer: &Answer) {
        let has_work = match answer {
            Answer::Preempted(_) => {
                self.was_preempted = true;
                true
            }
            Answer::Rang(rang) => rang.doorbell != Doorbell::Idle,
            Answer::Halted(_) | Answer::Woken | Answer::Ended => false,
        };
        vcpu.guest.hints.set_running(vcpu.index, false);
        vcpu.guest.steal.set_preempted(vcpu.index, has_work);
    }
}

/// `vcpu` runs whenever the host's scheduler lets it. Nobody could answer its doorbells, so none is requested,
/// and it is shown as running all the time.
pub(super) fn show_alone(vcpu: &Vcpu) {
    show_running(vcpu);
    vcpu.guest.hints.set_ring(vcpu.index, 0, 0, 0);
}

fn show_running(vcpu: &Vcpu) {
    vcpu.guest.hints.set_running(vcpu.index, true);
    vcpu.guest.steal.set_preempted(vcpu.index, false);
}
