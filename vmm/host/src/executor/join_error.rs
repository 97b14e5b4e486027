//! Why a guest could not join a pool.

use thiserror::Error;
use vcpu_sched::{AdmissionError, Ns};

use super::admission::NotAdmitted;
use super::late_halts::LateHaltsError;
use crate::halt::HaltThreadError;
use crate::ready_guest::ReadyGuest;

/// A guest that could not join a pool, which is as before. The guest has not run, and can be given again.
#[derive(Debug)]
pub struct RefusedJoin {
    /// The guest.
    pub guest: ReadyGuest,
    /// Why it could not join.
    pub error: JoinError,
}

/// A guest could not join a pool.
#[derive(Debug, Error)]
#[error("guest {guest}{kind}")]
pub struct JoinError {
    /// The guest's name.
    pub guest: String,
    /// What happened.
    pub kind: JoinErrorKind,
}

/// What happened when a guest was to join a pool.
#[derive(Debug, Error)]
pub enum JoinErrorKind {
    /// A reservation could not be guaranteed beside the others, or there are too many vCPUs.
    #[error(", vCPU {vcpu}: {source}")]
    Admission {
        /// Index of the vCPU.
        vcpu: usize,
        /// What would fit.
        source: AdmissionError,
        /// When more is free, ns of `CLOCK_MONOTONIC`, because guests have left or changed their reservations
        /// whose bandwidth is in use until then; `None`: not before a guest leaves or changes its reservations.
        retry_at: Option<Ns>,
    },
    /// Another guest of the pool has this name.
    #[error(": the pool has a guest of this name; give another name")]
    NameTaken,
    /// The pool has stopped.
    #[error(": the pool has stopped; start another run")]
    Stopped,
    /// The guest has a reservation, and the host would report halts late.
    #[error(": {0}")]
    LateHalts(#[from] LateHaltsError),
    /// The threads of its vCPUs could not be set up.
    #[error(": {0}")]
    Threads(#[from] HaltThreadError),
}

impl From<NotAdmitted> for JoinErrorKind {
    fn from(refusal: NotAdmitted) -> Self {
        let NotAdmitted {
            vcpu,
            source,
            retry_at,
        } = refusal;
        Self::Admission {
            vcpu,
            source,
            retry_at,
        }
    }
}
