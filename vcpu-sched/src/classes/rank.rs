//! The order of scheduling contexts.

use crate::classes::virtual_time::VirtualTime;
use crate::ids::Ns;

/// Order of scheduling contexts in a queue: reservations before best effort, then by deadline or start
/// tag, then first come first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Earliest deadline first: the absolute deadline, ns, and the FIFO number.
    Deadline(Ns, u64),
    /// Start-time fair queueing: the start tag and the FIFO number.
    Fair(VirtualTime, u64),
}

impl Rank {
    pub(crate) const fn is_deadline(self) -> bool {
        matches!(self, Self::Deadline(..))
    }

    /// The start tag in the fair order.
    pub(crate) const fn tag(self) -> Option<VirtualTime> {
        match self {
            Self::Fair(tag, _) => Some(tag),
            Self::Deadline(..) => None,
        }
    }

    /// Whether it may take the CPU from `running` before the slice of that ends. An earlier deadline
    /// may; an equal one and best effort may not.
    pub(crate) fn preempts(self, running: Self) -> bool {
        match (self, running) {
            (Self::Deadline(deadline, _), Self::Deadline(other, _)) => deadline < other,
            (Self::Deadline(..), Self::Fair(..)) => true,
            (Self::Fair(..), _) => false,
        }
    }
}
