//! A scheduler: what it is given, guests that are ready to run, and what it reports at the end.

use thiserror::Error;

use crate::executor::pool_handle::PoolHandle;
pub use crate::ready_guest::ReadyGuest;
pub use crate::report::{ExecutorReport, RunnerReport, VcpuAccount};

/// A scheduler that runs vCPUs.
pub trait Runner {
    /// A handle by which other threads let guests join and leave, and change them, while this scheduler runs.
    ///
    /// # Errors
    /// If the guests of this scheduler are those with which it started.
    fn pool(&self) -> Result<PoolHandle, NoPool>;

    /// Stops all vCPUs and waits until none runs. To be called also when all guests have ended by
    /// themselves.
    fn stop(self: Box<Self>) -> RunnerReport;
}

/// The guests of a run cannot change, because the host's scheduler runs their vCPUs.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "under --sched host and host-deadline guests cannot join, leave or change during a run: use --sched baton"
)]
pub struct NoPool;
