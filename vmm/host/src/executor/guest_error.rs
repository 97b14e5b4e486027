//! Why a guest of a pool could not be changed.

use thiserror::Error;
use vcpu_sched::AdmissionError;

/// A guest of a pool could not be changed, and is as before.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GuestCallError {
    /// The pool has no guest of this name.
    #[error("the pool has no guest {0}; name one of its guests")]
    NoGuest(String),
    /// The guest has ended by itself.
    #[error("guest {0} has ended; it can only leave the pool")]
    Ended(String),
    /// The guest is paused already.
    #[error("guest {0} is paused already; resume it first")]
    Paused(String),
    /// The guest is not paused.
    #[error("guest {0} is not paused; there is nothing to resume")]
    NotPaused(String),
    /// The guest does not have this vCPU.
    #[error("guest {guest} has no vCPU {vcpu}; its vCPUs are 0 to {last}")]
    NoVcpu {
        /// The guest's name.
        guest: String,
        /// The index that was given.
        vcpu: u32,
        /// The highest index.
        last: u32,
    },
    /// The policy did not admit the change.
    #[error("guest {guest}, vCPU {vcpu}: {source}")]
    Admission {
        /// The guest's name.
        guest: String,
        /// Index of the vCPU.
        vcpu: u32,
        /// What would fit.
        source: AdmissionError,
    },
    /// The pool has stopped.
    #[error("the pool has stopped; start another run")]
    Stopped,
}
