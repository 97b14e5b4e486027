//! What a thread that runs a vCPU has to know of those who make it stop.

/// The kicks that end a run of a vCPU early. Each of them sends the kick signal to the thread that runs the vCPU
/// (`kick_handler.rs`), after it has been recorded here.
pub(crate) trait Kicks {
    /// The calling thread is about to enter the guest. False: a kick is pending, do not enter.
    fn enter_guest(&self) -> bool;

    /// Whether a kick came while in the guest. To be called after `immediate_exit` was cleared.
    fn is_kicked(&self) -> bool;

    /// The calling thread is back from the guest.
    fn leave_guest(&self);
}
