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
    /// The guest reset itself, by ACPI or by the keyboard controller.
    Reset,
    /// The guest was reset from outside, as by the reset button of a PC.
    ResetByRequest,
    /// The guest switched itself off after its power button was pressed.
    PoweredOff,
    /// The guest's power button was pressed, and the guest was cut because it had not switched itself off in the
    /// time that it was given for that.
    PowerCut,
    /// The guest was stopped from outside: the run is over.
    Killed,
    /// The guest was stopped to take it out of its pool, and others go on.
    Removed,
    /// The user ended the guest by a key at its console, and others go on.
    Quit,
    /// The guest has ended in another process, which reported this.
    Reported {
        /// Whether nothing went wrong.
        ok: bool,
        /// How it ended, in the words of that process.
        text: String,
    },
    /// The process with the guest has ended, or was ended because of this.
    ProcessLost(String),
}

impl GuestEnd {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_success(&self) -> bool {
        match self {
            Self::Exited(code) => *code == 0,
            Self::Reset
            | Self::ResetByRequest
            | Self::PoweredOff
            | Self::PowerCut
            | Self::Killed
            | Self::Removed
            | Self::Quit => true,
            Self::Reported { ok, .. } => *ok,
            Self::TripleFault { .. } | Self::InternalError { .. } | Self::ProcessLost(_) => false,
        }
    }

    /// Whether a PC would start anew.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(
            self,
            Self::Reset | Self::ResetByRequest | Self::TripleFault { .. }
        )
    }

    /// Whether somebody other than the guest requested it.
    #[must_use]
    pub fn is_by_request(&self) -> bool {
        match self {
            Self::ResetByRequest
            | Self::PoweredOff
            | Self::PowerCut
            | Self::Killed
            | Self::Removed
            | Self::Quit => true,
            Self::Exited(_)
            | Self::TripleFault { .. }
            | Self::InternalError { .. }
            | Self::Reset
            | Self::Reported { .. }
            | Self::ProcessLost(_) => false,
        }
    }

    /// The code with which the guest ended by itself; `None` if it failed otherwise or was stopped.
    #[must_use]
    pub fn exit_code(&self) -> Option<u32> {
        match self {
            Self::Exited(code) => Some(*code),
            Self::Reset | Self::ResetByRequest | Self::PoweredOff => Some(0),
            _ => None,
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
            Self::Reset => write!(f, "reset itself"),
            Self::ResetByRequest => write!(f, "reset by request"),
            Self::PoweredOff => write!(f, "powered off by request"),
            Self::PowerCut => write!(
                f,
                "cut after the timeout: it had not powered off by request"
            ),
            Self::Killed => write!(f, "stopped when the run ended"),
            Self::Removed => write!(f, "stopped and taken out of its pool"),
            Self::Quit => write!(f, "ended at its console"),
            Self::Reported { text, .. } => f.write_str(text),
            Self::ProcessLost(text) => write!(f, "lost with its process: {text}"),
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
