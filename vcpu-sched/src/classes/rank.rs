//! The order of claims.

use crate::ids::Ns;

/// Order of claims in a queue: reserved before best effort, then by deadline or start tag, then
/// first come first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// EDF: (absolute deadline, arrival).
    Reserved(Ns, u64),
    /// Start-time fair queueing: (start tag, arrival).
    BestEffort(u128, u64),
}

/// Whether `rank` may take the CPU from `running` before its slice ends: an earlier deadline may,
/// an equal one and a best-effort claim may not.
pub(crate) fn more_urgent(rank: Rank, running: Rank) -> bool {
    match (rank, running) {
        (Rank::Reserved(deadline, _), Rank::Reserved(other, _)) => deadline < other,
        (Rank::Reserved(..), Rank::BestEffort(..)) => true,
        (Rank::BestEffort(..), _) => false,
    }
}
