//! What an executor runs next: a vCPU, and the policy's decision about it.

use baton_os::sys;
use vcpu_sched::{Decision, Hints, Ns};

use super::looks::Looks;
use super::owned_vcpu::OwnedVcpu;

/// The vCPU that the policy has picked for an executor.
pub(crate) struct Assignment {
    pub(super) vcpu: OwnedVcpu,
    /// When the decision ends, ns; a deferral moves that. `None`: not before something happens.
    pub(super) until: Option<Ns>,
    /// When it is looked at before that, if it rings no doorbell.
    pub(super) looks: Option<Looks>,
    pub(super) decision: Decision,
}

impl Assignment {
    pub(crate) fn new(vcpu: OwnedVcpu, decision: Decision) -> Self {
        Self {
            vcpu,
            until: decision.until,
            looks: None,
            decision,
        }
    }

    /// Whether the vCPU runs on another vCPU's scheduling context.
    pub(crate) fn is_proxied(&self) -> bool {
        self.decision.is_proxied()
    }

    /// Begins the looks at a vCPU without a hint page, which enters the guest in `entry`, ns.
    pub(super) fn begin_looks(&mut self, entry: Ns) {
        let until_release = self.decision.until_release;
        let may_wait = self.decision.may_wait || self.vcpu.look_pace().is_alert();
        // A vCPU with which none competes waits for none that is off the CPUs.
        if self.vcpu.is_inferred() && (until_release || (may_wait && self.until.is_some())) {
            let (now, pace) = (sys::monotonic_ns(), self.vcpu.look_pace());
            self.looks = Some(match until_release {
                true => Looks::until_release(now, entry, pace),
                false => Looks::for_wait(now, entry, pace),
            });
        }
    }

    /// The vCPU's time is up, or its CPU is to reschedule, and it has these `hints`: its turn ends, if it was its
    /// own. A deferral may follow.
    pub(super) fn end_turn(&mut self, hints: &Hints) {
        if hints.is_guess && !self.decision.until_release {
            let looked_at = self.looks.is_some_and(|looks| looks.are_for_wait());
            self.vcpu.look_pace().turn_ended(hints.waits, looked_at);
        }
    }

    /// Shows the guest, before the vCPU runs, that it runs and on which scheduling context.
    pub(crate) fn show_running(&mut self) {
        self.vcpu.show_running(&self.decision);
    }

    /// Requests a doorbell of the vCPU when it releases its last lock, because its preemption is
    /// deferred until then.
    pub(crate) fn show_deferral(&mut self) {
        self.vcpu.show_deferral(&self.decision);
    }
}
