//! Exit on wake: what makes `KVM_RUN` end when a halted vCPU wakes, instead of running on.
//!
//! There are two ways. Tracepoints (`wake_events.rs`) end it before the guest executes anything, but
//! only root finds them as a rule. Where they are not to be had, debug flags (`wake_step.rs`) end it
//! after one instruction, which a guest can escape from, as far as its leash (`runaway_guard.rs`) reaches.

use baton_machine::Vcpu;

use super::pending;
use super::wake_events::WakeEvents;
use super::wake_step;

/// A way to make a wake an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitOnWake {
    /// By tracepoints, before the guest executes anything; by debug flags where they are not to be
    /// had ([`super::check_wake_events`]).
    Events,
    /// By debug flags, after one instruction.
    Step,
}

/// While it is there, a wake of one vCPU ends `KVM_RUN` on this thread; [`Watch::end`] has to follow.
#[must_use]
pub(super) enum Watch<'a> {
    Events(&'a WakeEvents),
    Step,
}

impl<'a> Watch<'a> {
    /// For `vcpu`, by `events` if they are there. `None`: KVM refused, and the guest has ended with a
    /// message.
    pub(super) fn begin(events: Option<&'a WakeEvents>, vcpu: &Vcpu) -> Option<Self> {
        match events {
            // They can be switched on as long as their thread lives.
            Some(events) if events.on().is_ok() => Some(Self::Events(events)),
            _ => wake_step::set(vcpu).then_some(Self::Step),
        }
    }

    /// `vcpu` runs as usual again. False: KVM refused, and the guest has ended with a message.
    pub(super) fn end(self, vcpu: &Vcpu) -> bool {
        match self {
            Self::Events(events) => {
                // As in `begin`; if not, `KVM_RUN` ends too often on this thread, but runs.
                let _ = events.off();
                true
            }
            Self::Step => wake_step::clear(vcpu),
        }
    }

    /// Whether the halted `vcpu` has woken already, before it sleeps, so that `KVM_RUN` would not sleep
    /// either. Debug flags see to that by themselves.
    pub(super) fn is_over(&self, vcpu: &mut Vcpu) -> bool {
        matches!(self, Self::Events(_)) && pending::interrupt(vcpu)
    }

    /// Whether a signal, when nobody recalled the vCPU, tells that it woke, also while KVM still calls
    /// it halted.
    pub(super) fn tells_by_signal(&self) -> bool {
        matches!(self, Self::Events(_))
    }
}
