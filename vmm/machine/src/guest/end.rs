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
    /// The guest was stopped to take it out of its pool, and others go on.
    Removed,
    /// The user ended the guest by a key at its console, and others go on.
    Quit,
}

impl GuestEnd {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_success(&self) -> bool {
        match self {
            Self::Exited(code) => *code == 0,
            Self::Killed | Self::Removed | Self::Quit => true,
            Self::TripleFault { .. } | Self::InternalError { .. } => false,
        }
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
            Self::Removed => write!(f, "stopped and taken out of its pool"),
            Self::Quit => write!(f, "ended at its console"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_others_outlive_did_not_fail_and_was_not_stopped_by_the_end_of_the_run() {
        for end in [GuestEnd::Removed, GuestEnd::Quit] {
            assert!(end.is_success(), "{end}");
            assert!(!end.to_string().contains("run"), "{end}");
        }
        assert!(GuestEnd::Killed.is_success() && !GuestEnd::Exited(1).is_success());
    }
}
