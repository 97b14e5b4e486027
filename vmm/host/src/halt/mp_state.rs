//! KVM's run states of a vCPU (`KVM_GET_MP_STATE`).

use kvm_bindings::{
    KVM_MP_STATE_AP_RESET_HOLD, KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED,
};

/// Whether a vCPU in run state `mp_state` (`KVM_MP_STATE_*`) has nothing to run: it sleeps in `KVM_RUN`
/// until an interrupt or, if it waits to be started, a start-up message.
#[must_use]
pub fn is_halted(mp_state: u32) -> bool {
    matches!(
        mp_state,
        KVM_MP_STATE_HALTED
            | KVM_MP_STATE_UNINITIALIZED
            | KVM_MP_STATE_INIT_RECEIVED
            | KVM_MP_STATE_AP_RESET_HOLD
    )
}
