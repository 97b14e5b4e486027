//! What an isolation changes, for one version of control groups or the other.

use super::error::IsolationError;
use super::hierarchy::Hierarchy;
use super::host::Host;
use super::partition::Partition;
use super::shield::{Remaining, Shield};

/// A change, planned or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Version 2.
    Partition(Partition),
    /// Version 1.
    Shield(Shield),
}

impl Change {
    /// Plans the isolation of `cpus` in `hierarchy`. Nothing is changed yet.
    pub(super) fn plan(
        host: &impl Host,
        hierarchy: Hierarchy,
        cpus: &[usize],
    ) -> Result<Self, IsolationError> {
        Ok(match hierarchy {
            Hierarchy::V1(root) => Self::Shield(Shield::plan(host, root, cpus)?),
            Hierarchy::V2 { root, own } => Self::Partition(Partition::plan(host, root, own, cpus)?),
        })
    }

    /// Isolates `cpus`. `keep` writes the record, and is called before each part that the record has to have.
    pub(super) fn make(
        &mut self,
        host: &impl Host,
        cpus: &[usize],
        keep: impl Fn(&Self) -> Result<(), IsolationError>,
    ) -> Result<Remaining, IsolationError> {
        match self {
            Self::Partition(partition) => {
                let keep = |partition: &Partition| keep(&Self::Partition(partition.clone()));
                partition.make(host, cpus, keep)?;
                Ok(Remaining::default())
            }
            Self::Shield(shield) => shield.make(host, |shield| keep(&Self::Shield(shield.clone()))),
        }
    }

    /// Undoes what was made of it. What is undone already is left as it is.
    pub(super) fn undo(&self, host: &impl Host) -> Result<(), IsolationError> {
        match self {
            Self::Partition(partition) => partition.undo(host),
            Self::Shield(shield) => shield.undo(host),
        }
    }
}
