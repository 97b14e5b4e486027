//! The vCPU of a thread. When its guest has ended, the thread releases it, and gets the one that takes its place when
//! the guest starts again.

use std::thread;

use baton_machine::{ExitCounts, GuestEnd, Vcpu};

use super::phase::PhaseSlot;

/// The vCPU that a thread has at the moment.
pub(super) struct CurrentVcpu {
    vcpu: Option<Box<Vcpu>>,
    /// The exits of those that were released.
    exits: ExitCounts,
}

impl CurrentVcpu {
    pub(super) fn new(vcpu: Box<Vcpu>) -> Self {
        Self {
            vcpu: Some(vcpu),
            exits: ExitCounts::default(),
        }
    }

    /// The vCPU, if its guest has not ended. One that takes its place is in `slot`. `None`: the guest has ended.
    pub(super) fn ready(&mut self, slot: &PhaseSlot) -> Option<&mut Vcpu> {
        self.release_ended();
        if self.vcpu.is_none() {
            self.replace(slot.take_vcpu());
        }
        self.vcpu.as_deref_mut()
    }

    /// Takes `vcpu`, if there is one, in the place of its own. Returns that which it has then, if its guest has not
    /// ended.
    pub(super) fn replace(&mut self, vcpu: Option<Box<Vcpu>>) -> Option<&mut Vcpu> {
        self.release_ended();
        self.vcpu = vcpu.or(self.vcpu.take());
        // The guest may have ended again.
        self.release_ended();
        self.vcpu.as_deref_mut()
    }

    /// Releases the vCPU if its guest has ended. True: there is none.
    pub(super) fn release_ended(&mut self) -> bool {
        if let Some(ended) = self.vcpu.take_if(|vcpu| vcpu.guest.has_ended()) {
            self.exits.add(&ended.exits);
            ended.discard();
        }
        self.vcpu.is_none()
    }

    /// The exits of all vCPUs so far.
    pub(super) fn exits(&self) -> ExitCounts {
        let mut exits = self.exits;
        if let Some(vcpu) = &self.vcpu {
            exits.add(&vcpu.exits);
        }
        exits
    }
}

impl Drop for CurrentVcpu {
    fn drop(&mut self) {
        let Some(vcpu) = self.vcpu.take() else { return };
        if thread::panicking() {
            // Nothing could run the vCPU any more.
            vcpu.guest.end(GuestEnd::InternalError {
                vcpu: vcpu.index,
                text: "the thread that ran it has failed".into(),
            });
        }
        vcpu.discard();
    }
}
