//! A nap: a halted vCPU sleeps on the thread of the executor that ran it, which has nothing else to
//! run.
//!
//! As in a bed (`bed.rs`), waking is an exit after one instruction. But nobody is handed anything: the
//! executor's kick ends the nap as it ends a run, and a vCPU that wakes is where it will run.

use kvm_bindings::KVM_MP_STATE_HALTED;

use super::bed::Bedding;
use super::{is_halted, wake_step};
use crate::machine::{Exit, Vcpu};

/// Why a nap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum NapEnd {
    /// It woke, or never slept; the policy is to hear of it. What its one instruction needed, if
    /// anything, is what its next run returns.
    Woken,
    /// A kick or the executor's timer. It sleeps still.
    Kicked,
    /// It waits to be started, which KVM does not always let it sleep for: it belongs in a bed.
    NotHere,
}

/// Makes `vcpu` ready for [`sleep`]; [`get_up`] has to follow.
///
/// # Errors
/// Why it does not sleep; then nothing has to follow.
pub(crate) fn lie_down(vcpu: &mut Vcpu) -> Result<(), NapEnd> {
    vcpu.complete_pending();
    match vcpu.mp_state() {
        Ok(KVM_MP_STATE_HALTED) => {}
        Ok(state) if is_halted(state) => return Err(NapEnd::NotHere),
        _ => return Err(NapEnd::Woken),
    }
    if wake_step::set(vcpu) {
        Ok(())
    } else {
        Err(NapEnd::Woken)
    }
}

/// No debug flags are set any more. If KVM refuses, the guest has ended, which the next run tells.
pub(crate) fn get_up(vcpu: &Vcpu) {
    wake_step::clear(vcpu);
}

/// Sleeps until the vCPU wakes or `immediate_exit` is set.
pub(crate) fn sleep(vcpu: &mut Vcpu, bedding: &Bedding) -> NapEnd {
    let Ok(mut held) = bedding.hold(vcpu) else {
        // It could run on without an end here. Where the policy runs it, it halts again.
        return NapEnd::Woken;
    };
    loop {
        match vcpu.run() {
            Exit::Debug => return NapEnd::Woken,
            Exit::Interrupted => match vcpu.mp_state() {
                // The leash; whoever kicks sets the flag.
                Ok(KVM_MP_STATE_HALTED) if !vcpu.immediate_exit().is_set() => {
                    held.lengthen();
                }
                Ok(KVM_MP_STATE_HALTED) => return NapEnd::Kicked,
                Ok(state) if is_halted(state) => return NapEnd::NotHere,
                _ => {
                    // As in a bed.
                    vcpu.slips |= !vcpu.immediate_exit().is_set();
                    return NapEnd::Woken;
                }
            },
            exit => {
                vcpu.put_off(exit);
                return NapEnd::Woken;
            }
        }
    }
}
