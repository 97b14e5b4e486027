//! A nap: a halted vCPU sleeps on the thread of the executor that ran it, which has nothing else to
//! run.
//!
//! As in a bed (`bed.rs`), waking is an exit. But nobody is handed anything: the executor's kick ends the nap as it ends a run, and a vCPU that wakes is where it will run.

use baton_machine::{Exit, Vcpu};
use kvm_bindings::KVM_MP_STATE_HALTED;

use super::bed::Bedding;
use super::doze;
use super::exit_on_wake::Watch;
use super::is_halted;

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

/// A nap that has been made ready.
#[must_use]
pub(crate) struct Nap<'a> {
    bedding: &'a Bedding,
    watch: Watch<'a>,
}

/// Makes `vcpu` ready for [`sleep`]; [`get_up`] has to follow.
///
/// # Errors
/// Why it does not sleep; then nothing has to follow.
pub(crate) fn lie_down<'a>(vcpu: &mut Vcpu, bedding: &'a Bedding) -> Result<Nap<'a>, NapEnd> {
    vcpu.complete_pending();
    vcpu.limit_timer();
    match vcpu.mp_state() {
        Ok(KVM_MP_STATE_HALTED) => {}
        Ok(state) if is_halted(state) => return Err(NapEnd::NotHere),
        _ => return Err(NapEnd::Woken),
    }
    match bedding.watch(vcpu) {
        Some(watch) => Ok(Nap { bedding, watch }),
        None => Err(NapEnd::Woken),
    }
}

/// The vCPU runs as usual again. If KVM refuses, the guest has ended, which the next run tells.
pub(crate) fn get_up(nap: Nap<'_>, vcpu: &Vcpu) {
    nap.watch.end(vcpu);
}

/// Sleeps until the vCPU wakes or `immediate_exit` is set.
pub(crate) fn sleep(vcpu: &mut Vcpu, nap: &Nap<'_>) -> NapEnd {
    let by_signal = nap.watch.tells_by_signal();
    let Ok(mut held) = nap.bedding.hold(vcpu) else {
        // It could run on without an end here. Where the policy runs it, it halts again.
        return NapEnd::Woken;
    };
    if nap.watch.is_over(vcpu) {
        return NapEnd::Woken;
    }
    loop {
        match doze::run(vcpu) {
            Exit::Debug => return NapEnd::Woken,
            Exit::Interrupted => match vcpu.mp_state() {
                // Whoever kicks sets the flag.
                Ok(KVM_MP_STATE_HALTED) if vcpu.immediate_exit().is_set() => return NapEnd::Kicked,
                Ok(KVM_MP_STATE_HALTED) if by_signal => return NapEnd::Woken,
                // The leash.
                Ok(KVM_MP_STATE_HALTED) => held.lengthen(),
                Ok(state) if is_halted(state) => return NapEnd::NotHere,
                _ => {
                    // As in a bed.
                    vcpu.overran_single_step |= !by_signal && !vcpu.immediate_exit().is_set();
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
