//! Exit on wake by debug flags: a halted vCPU that wakes runs one instruction, and its interrupt stays
//! pending.
//!
//! This is for hosts where the tracepoints (`wake_events.rs`) are not available. It is weaker: a guest can
//! choose an instruction that is not stopped (`runaway_guard.rs`), the trap flag is visible in the frame of a
//! handler that the instruction enters, and where KVM uses the processor's own local APIC (APICv, AVIC), the
//! flags switch that off and on again for the whole guest at each sleep.
//!
//! `KVM_GUESTDBG_BLOCKIRQ` keeps KVM from delivering interrupts, but not from ending a halt because of
//! them; `KVM_GUESTDBG_SINGLESTEP` then ends `KVM_RUN` after the one instruction that follows HLT.
//! The interrupt stays pending in the local APIC and is delivered when the vCPU runs without the flags.
//! (Linux, Documentation/virt/kvm/api.rst, `KVM_SET_GUEST_DEBUG`.)
//!
//! A debugger of the guest would use the same flags: the two exclude each other.

use baton_machine::{GuestEnd, Vcpu};
use kvm_bindings::{
    KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP,
};
use kvm_ioctls::Kvm;
use thiserror::Error;

/// The debug flags that make a wake an exit.
const FLAGS: u32 = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;

/// KVM cannot make wakes exits on this host.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WakeStepError {
    /// KVM does not support one of the debug flags; these are the ones that it supports.
    #[error(
        "this host's KVM cannot hold interrupts back while it steps (debug flags {0:#x}), so halted \
         vCPUs are polled: use Linux 5.16 or newer"
    )]
    Unsupported(u32),
}

/// Checks that KVM can make wakes exits on this host. To be called before the first halt thread is made.
///
/// # Errors
/// What is missing.
pub fn check_wake_step(kvm: &Kvm) -> Result<(), WakeStepError> {
    supports(kvm.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into()))
}

fn supports(answer: i32) -> Result<(), WakeStepError> {
    // Before Linux 5.16 the mask lacks BLOCKIRQ; before 5.13 the answer is 0.
    let flags = u32::try_from(answer).unwrap_or(0);
    if flags & FLAGS == FLAGS {
        Ok(())
    } else {
        Err(WakeStepError::Unsupported(flags))
    }
}

/// Makes the vCPU stop after one instruction and take no interrupts from here on. Costs about 2 us.
/// False: KVM refused, and the guest has ended with a message.
pub(super) fn set(vcpu: &Vcpu) -> bool {
    apply(vcpu, FLAGS)
}

/// Lets the vCPU run as usual again. Cost and result as for [`set`].
pub(super) fn clear(vcpu: &Vcpu) -> bool {
    apply(vcpu, 0)
}

fn apply(vcpu: &Vcpu, flags: u32) -> bool {
    match vcpu.set_guest_debug(flags) {
        Ok(()) => true,
        Err(error) => {
            vcpu.guest.end(GuestEnd::InternalError {
                vcpu: vcpu.index,
                text: format!("KVM refused debug flags {flags:#x} for a halted vCPU: {error}"),
            });
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_blockirq_is_refused() {
        assert_eq!(supports(0x1f_0003), Ok(()));
        assert_eq!(
            supports(0x0f_0003),
            Err(WakeStepError::Unsupported(0x0f_0003))
        );
        assert_eq!(supports(0), Err(WakeStepError::Unsupported(0)));
        assert_eq!(supports(-1), Err(WakeStepError::Unsupported(0)));
    }
}
