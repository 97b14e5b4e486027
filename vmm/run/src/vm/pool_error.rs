//! Why a guest has not joined its pool.

use std::path::PathBuf;

use baton_host::executor::LateHaltsError;
use baton_host::halt::WakeStepError;
use baton_link::connection::ConnectionError;
use baton_link::join::JoinError;
use baton_link::pages::PagesError;
use thiserror::Error;

/// A guest has not joined its pool.
#[derive(Debug, Error)]
pub enum PoolError {
    /// No pool listens there.
    #[error(
        "no pool can be reached at {}: {source}; start one with baton pool, or name the directory of one with \
         --pool", .path.display()
    )]
    NotThere {
        /// The path of the socket.
        path: PathBuf,
        /// Why the connection failed.
        source: ConnectionError,
    },
    /// The pages of the vCPUs could not be made.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The pool refused, or has another version.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The guest has a reservation, and halts are noticed late.
    #[error(transparent)]
    LateHalts(#[from] LateHaltsError),
    /// A halted vCPU cannot sleep as the pool commands.
    #[error(transparent)]
    Wakes(#[from] WakeStepError),
}

impl PoolError {
    /// Whether the pool has answered, and will probably answer the same soon.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Join(JoinError::Refused { .. } | JoinError::Protocol)
        )
    }
}
