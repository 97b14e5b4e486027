//! What the user is to know about the inferred hints of a guest.

use std::fmt;

use super::plausibility::Implausible;

/// Something that the user is to know about the hints of a guest, with the guest as the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Hints are inferred from the count at this offset from GS.
    Found(u64),
    /// The kernel has no count.
    NotFound,
    /// The symbols that the user gave are not those of the kernel.
    OtherSymbols,
    /// What was found at this offset from GS is no count, for this reason.
    Wrong(u64, Implausible),
    /// The registers of its vCPUs cannot be read.
    Unreadable,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(offset) => write!(
                f,
                "has hints inferred from the preempt count of its kernel, at {offset:#x} from GS"
            ),
            Self::NotFound => f.write_str(
                "has a kernel without a preempt count, so it is not inferred what its vCPUs hold",
            ),
            Self::OtherSymbols => f.write_str(
                "has another kernel than that of the symbols given, so it is not inferred what its vCPUs hold",
            ),
            Self::Wrong(offset, reason) => write!(
                f,
                "has no preempt count at {offset:#x} from GS, because the value there {reason}; it is \
                 no longer inferred what its vCPUs hold"
            ),
            Self::Unreadable => f.write_str(
                "has no inferred hints, because KVM does not report the registers of its vCPUs",
            ),
        }
    }
}
