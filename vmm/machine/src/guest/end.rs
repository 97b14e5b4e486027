//! How a guest ended.

use std::fmt;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// The guest reported that it is done, with this code; 0 is success.
    Exited(u32),
    /// A vCPU faulted while it handled a fault of the handler of a fault.
    TripleFault {
        /// Index of the vCPU.
        vcpu: u32,
    },
    /// KVM or Baton cannot run the guest any further.
    InternalError {
        /// Index of the vCPU.
        vcpu: u32,
        /// What happened.
        text: String,
    },
    /// The guest was stopped from outside: the run is over.
    Killed,
}

impl GuestEnd {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(0) | Self::Killed)
    }
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => write!(f, "done"),
            Self::Exited(code) => write!(f, "failed with code {code}"),
            Self::TripleFault { vcpu } => write!(
                f,
                "triple fault on vCPU {vcpu} (the host's kernel log may name the address)"
            ),
            Self::InternalError { vcpu, text } => write!(f, "stopped at vCPU {vcpu}: {text}"),
            Self::Killed => write!(f, "stopped when the run ended"),
        }
    }
}
