//! The order of claims.

use crate::ids::Ns;

/// Order of claims in a queue: reserved before best effort, then by deadline or start tag, then
/// first come first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// EDF: (absolute deadline, fifo_seq).
    Deadline(Ns, u64),
    /// Start-time fair queueing: (start tag, fifo_seq).
    Fair(u128, u64),
}

/// Whether `rank` may take the CPU from `running` before its slice ends: an earlier deadline may,
/// an equal one and a best-effort claim may not.
pub(crate) fn more_urgent(rank: Rank, running: Rank) -> bool {
    match (rank, running) {
        (Rank::Deadline(deadline, _), Rank::Deadline(other, _)) => deadline < other,
        (Rank::Deadline(..), Rank::Fair(..)) => true,
        (Rank::Fair(..), _) => false,
    }
}
