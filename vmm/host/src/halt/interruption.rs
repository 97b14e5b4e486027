//! How the sleep of a halted vCPU is interrupted.

use std::time::Duration;

use baton_machine::ImmediateExit;

/// The way by which others interrupt the sleep of a vCPU: they set `immediate_exit` of the vCPU and signal the
/// thread on which it sleeps, after they have recorded here that the sleep is to end.
pub(crate) trait Interruption {
    /// The calling thread is about to let the vCPU of `immediate_exit` sleep in `KVM_RUN`. False: the sleep is
    /// interrupted already, and the vCPU must not sleep.
    fn begin_sleep(&self, immediate_exit: ImmediateExit) -> bool;

    /// Whether the sleep is to end. To be called after each signal, before the next `KVM_RUN`.
    fn is_interrupted(&self) -> bool;

    /// Waits before the next `KVM_RUN`, for `time` or until the sleep is interrupted. May return early.
    fn pause(&self, time: Duration);

    /// The vCPU does not sleep any more.
    fn end_sleep(&self);
}
