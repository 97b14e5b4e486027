//! What guests that start again need of the pool in which they run.

use baton_host::executor::{GuestCallError, PoolHandle};
use baton_host::runner::{ReadyGuest, VcpuAccount};
use baton_machine::{GuestEnd, GuestRecord};

use crate::error::RunError;

/// The pool of guests that start again.
pub(crate) trait RestartPool {
    /// The guest of `record` has ended as `end`, and is to start again after a wait.
    fn ended(&self, record: &GuestRecord, end: &GuestEnd);

    /// Takes the guest `name`, which has ended, out of the pool if it is to join again. Returns what was counted for its
    /// vCPUs; `None`: it stays, and the counters go on.
    ///
    /// # Errors
    /// If there is no such guest.
    fn leave(&self, name: &str) -> Result<Option<Vec<VcpuAccount>>, GuestCallError>;

    /// `guest` runs from now on, in the place of the one that has left.
    ///
    /// # Errors
    /// If it cannot.
    fn join(&self, guest: ReadyGuest) -> Result<(), RunError>;

    /// Whether a guest can still start again.
    fn can_restart(&self) -> bool;
}

/// The pool of this process.
impl RestartPool for PoolHandle {
    fn ended(&self, _: &GuestRecord, _: &GuestEnd) {}

    fn leave(&self, name: &str) -> Result<Option<Vec<VcpuAccount>>, GuestCallError> {
        Ok(Some(Self::leave(self, name)?.vcpus))
    }

    fn join(&self, guest: ReadyGuest) -> Result<(), RunError> {
        Self::join(self, guest).map_err(|refused| RunError::Join(refused.error))
    }

    fn can_restart(&self) -> bool {
        true
    }
}
