//! A vCPU that has been taken from the pool. Its thread is in this process or in another one.
//!
//! The policy, the accounting and the order of the steps are the same for both. Where they differ is in this file:
//! the hints of a vCPU of this process are read where they are published, and what happens to the vCPU is shown at
//! once. Of a vCPU of another process, the last answer has the hints, and the next command has what is to be shown.

use std::sync::Arc;

use baton_abi::hints::{RING_DEFER, RING_DONATED};
use baton_machine::inferred::LookPace;
use baton_machine::{ExitCounts, GuestRecord};
use vcpu_sched::{Decision, Hints, Ns, StopReason, VcpuId};

use super::foreign_vcpu::ForeignVcpu;
use super::interrupt_sleep::InterruptSleep;
use super::local_vcpu::LocalVcpu;
use super::policy_ids::PolicyIds;

/// A vCPU in the hands of its one owner.
pub(crate) enum OwnedVcpu {
    /// A vCPU of this process.
    Local(LocalVcpu),
    /// A vCPU of another process.
    Foreign(Box<ForeignVcpu>),
}

impl OwnedVcpu {
    /// Its id in the policy.
    pub(crate) fn id(&self) -> VcpuId {
        match self {
            Self::Local(vcpu) => vcpu.id(),
            Self::Foreign(vcpu) => vcpu.id(),
        }
    }

    /// The policy's ids of its guest.
    pub(crate) fn ids(&self) -> &PolicyIds {
        match self {
            Self::Local(vcpu) => vcpu.ids(),
            Self::Foreign(vcpu) => vcpu.ids(),
        }
    }

    /// Its index in the guest.
    pub(crate) fn index(&self) -> u32 {
        match self {
            Self::Local(vcpu) => vcpu.index,
            Self::Foreign(vcpu) => vcpu.index(),
        }
    }

    /// What is known of its guest.
    pub(crate) fn record(&self) -> &Arc<GuestRecord> {
        match self {
            Self::Local(vcpu) => vcpu.guest.record(),
            Self::Foreign(vcpu) => vcpu.guest().record(),
        }
    }

    /// Whether it must not run any more.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Local(vcpu) => vcpu.guest.has_ended(),
            Self::Foreign(vcpu) => vcpu.has_ended(),
        }
    }

    /// The way to end its sleep.
    pub(crate) fn interrupt(&self) -> Arc<dyn InterruptSleep> {
        match self {
            Self::Local(vcpu) => Arc::clone(vcpu.threads()) as Arc<dyn InterruptSleep>,
            Self::Foreign(vcpu) => vcpu.interrupt(),
        }
    }

    /// Puts it to sleep, because it has halted. It comes back by `Pool::end_sleep`.
    pub(crate) fn begin_sleep(self) {
        match self {
            Self::Local(vcpu) => Arc::clone(vcpu.threads()).begin_sleep(vcpu),
            Self::Foreign(vcpu) => Arc::clone(vcpu.sleep()).begin_sleep(vcpu),
        }
    }

    /// Releases what it has of the host, because nothing runs it any more.
    pub(crate) fn discard(self) {
        match self {
            Self::Local(vcpu) => vcpu.into_vcpu().discard(),
            Self::Foreign(vcpu) => vcpu.discard(),
        }
    }

    /// Its exits so far.
    pub(crate) fn exits(&self) -> ExitCounts {
        match self {
            Self::Local(vcpu) => vcpu.exits,
            Self::Foreign(vcpu) => vcpu.exits,
        }
    }

    /// Counts a look at it.
    pub(crate) fn count_look(&mut self) {
        match self {
            Self::Local(vcpu) => vcpu.exits.looks += 1,
            Self::Foreign(vcpu) => vcpu.exits.looks += 1,
        }
    }

    /// The pace of the looks at it, if it publishes no hints.
    pub(crate) fn look_pace(&mut self) -> &mut LookPace {
        match self {
            Self::Local(vcpu) => &mut vcpu.look_pace,
            Self::Foreign(vcpu) => &mut vcpu.look_pace,
        }
    }

    /// Its hint record as of its last exit, or what is inferred, in the policy's terms.
    pub(crate) fn hints(&mut self) -> Hints {
        match self {
            Self::Local(vcpu) => vcpu.hints(),
            Self::Foreign(vcpu) => vcpu.hints(),
        }
    }

    /// The same of a vCPU that has halted.
    pub(crate) fn hints_of_halted(&mut self) -> Hints {
        match self {
            Self::Local(vcpu) => vcpu.hints_of_halted(),
            Self::Foreign(vcpu) => vcpu.hints(),
        }
    }

    /// Whether its hints are inferred: it has no page in which it could publish them.
    pub(crate) fn is_inferred(&self) -> bool {
        match self {
            Self::Local(vcpu) => vcpu.is_inferred(),
            Self::Foreign(vcpu) => vcpu.is_inferred(),
        }
    }

    /// When it has to wake by itself, since it has rung that it is idle, in the policy's time, ns.
    pub(crate) fn idle_until(&self) -> Option<Ns> {
        match self {
            Self::Local(vcpu) => vcpu.idle_until(),
            Self::Foreign(vcpu) => vcpu.payload(),
        }
    }

    /// The lock that it has handed over, since it has rung that it released one.
    pub(crate) fn handed_lock(&self) -> Option<u64> {
        match self {
            Self::Local(vcpu) => vcpu.handed_lock(),
            Self::Foreign(vcpu) => vcpu.payload(),
        }
    }

    /// Shows the guest the steal time of the vCPU since it joined: it has `waited` ns for a CPU or a budget, and the
    /// host took `host_steal` ns of its time on a CPU. In all of it the guest could have run.
    pub(crate) fn show_steal(&mut self, waited: Ns, host_steal: Ns) {
        match self {
            Self::Local(vcpu) => vcpu.show_steal(waited, host_steal),
            Self::Foreign(vcpu) => vcpu.next.stolen_ns = waited + host_steal,
        }
    }

    /// Shows the guest, before the vCPU runs, that it runs and on which scheduling context.
    pub(crate) fn show_running(&mut self, decision: &Decision) {
        match self {
            Self::Local(vcpu) => {
                vcpu.guest.hints.set_running(vcpu.index, true);
                vcpu.guest.steal.set_preempted(vcpu.index, false);
                match decision.is_proxied() {
                    true => vcpu.request_ring(RING_DONATED, decision),
                    false => vcpu.guest.hints.set_ring(vcpu.index, 0, 0, 0),
                }
            }
            Self::Foreign(vcpu) => vcpu.show_running(decision),
        }
    }

    /// Requests a doorbell of the vCPU when it releases its last lock, because its preemption is
    /// deferred until then.
    pub(crate) fn show_deferral(&mut self, decision: &Decision) {
        match self {
            Self::Local(vcpu) => {
                let donated = if decision.is_proxied() {
                    RING_DONATED
                } else {
                    0
                };
                vcpu.request_ring(RING_DEFER | donated, decision);
            }
            Self::Foreign(vcpu) => vcpu.next.is_deferred = true,
        }
    }

    /// Records that it has run for `ran` ns and stopped for `reason`; `None`: it halts and is to sleep.
    pub(crate) fn count_stop(&mut self, reason: Option<StopReason>, ran: Ns) {
        // The process of a foreign vCPU sees to its gaps.
        let Self::Local(vcpu) = self else { return };
        match reason {
            None => vcpu.gaps.sleeps(),
            Some(StopReason::Halted(until)) => vcpu.gaps.idles(until),
            Some(_) => vcpu.gaps.ran(ran),
        }
    }

    /// Limits its local APIC timer, because it stops for a longer time and not in a sleep. The process of a foreign
    /// vCPU does that before it answers.
    pub(crate) fn limit_timer(&mut self) {
        if let Self::Local(vcpu) = self {
            vcpu.limit_timer();
        }
    }

    /// Records whether it was kept from sleeping at its last halt.
    pub(crate) fn set_kept_awake(&mut self, kept_awake: bool) {
        match self {
            Self::Local(vcpu) => vcpu.kept_awake = kept_awake,
            Self::Foreign(vcpu) => vcpu.kept_awake = kept_awake,
        }
    }

    /// Whether it was kept from sleeping at its last halt.
    pub(crate) fn kept_awake(&self) -> bool {
        match self {
            Self::Local(vcpu) => vcpu.kept_awake,
            Self::Foreign(vcpu) => vcpu.kept_awake,
        }
    }

    /// Takes the CPU time that other threads than those of vCPUs have used for the guest up to `now`, ns, and
    /// that nothing has been charged for.
    pub(crate) fn take_rest(&self, now: Ns) -> Ns {
        match self {
            Self::Local(vcpu) => vcpu.guest.console().take_cpu_ns(),
            Self::Foreign(vcpu) => vcpu.guest().take_rest(now),
        }
    }

    /// Reports `what`, with the guest as the subject, to its user.
    pub(crate) fn print_notice(&mut self, what: &str) {
        match self {
            Self::Local(vcpu) => vcpu.print_notice(what),
            Self::Foreign(vcpu) => vcpu.guest().notice(what),
        }
    }
}
