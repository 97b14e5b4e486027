//! Why a request to the service fails.

use baton_api::{ApiError, ChangeError};
use baton_host::executor::GuestCallError;

use crate::fitting::would_fit;
use crate::grants::Denied;
use crate::process_pool::Refusal;

/// What a failure means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request cannot be read.
    Malformed,
    /// The caller may not do that.
    Denied,
    /// There is no such thing.
    Missing,
    /// The thing is there, and the request does not fit its state or what is left.
    Conflict,
    /// The request can be read, and makes no sense.
    Senseless,
    /// The request is of another type than JSON.
    MediaType,
    /// The request is too long.
    TooLong,
    /// The request did not come in time.
    Slow,
    /// The pool cannot answer at the moment.
    Busy,
    /// The path is there, and not for this method.
    Method,
}

/// A request has failed, and nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What that means.
    pub kind: FailureKind,
    /// What the caller reads.
    pub error: ApiError,
}

impl Failure {
    /// A failure for which `error` is the sentence.
    pub(crate) fn new(kind: FailureKind, error: impl ToString) -> Self {
        let error = ApiError {
            error: error.to_string(),
            would_fit: None,
        };
        Self { kind, error }
    }

    /// There is no guest `name`.
    pub(crate) fn no_guest(name: &str) -> Self {
        GuestCallError::NoGuest(name.to_owned()).into()
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::new(FailureKind::Denied, denied)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self::new(FailureKind::Senseless, error)
    }
}

impl From<GuestCallError> for Failure {
    fn from(error: GuestCallError) -> Self {
        let kind = match &error {
            GuestCallError::NoGuest(_) => FailureKind::Missing,
            GuestCallError::NoVcpu { .. } => FailureKind::Senseless,
            GuestCallError::Stopped => FailureKind::Busy,
            _ => FailureKind::Conflict,
        };
        let mut failure = Self::new(kind, &error);
        if let GuestCallError::Admission { source, .. } = &error {
            failure.error.would_fit = would_fit(source);
        }
        failure
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            reason: failure.error.error,
            would_fit: failure.error.would_fit,
        }
    }
}
