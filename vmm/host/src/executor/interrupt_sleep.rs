//! The way to end the sleep of a vCPU.

/// Where one vCPU sleeps while it is halted.
pub(crate) trait InterruptSleep: Send + Sync {
    /// Ends the sleep of the vCPU, or the next one if it does not sleep. It comes back by `Pool::end_sleep`.
    fn interrupt_sleep(&self);
}
