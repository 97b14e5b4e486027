//! Host CPUs from which the tasks of other programs are kept away.
//!
//! Linux restricts tasks to host CPUs by cpusets. Version 2 of control groups has partitions: host CPUs that belong
//! to one group, and that the kernel takes away from all others. In version 1, the tasks of the root cpuset are moved
//! to a cpuset without the isolated host CPUs. Either way, what is changed is written to a file before, so that the
//! next process can undo it if this one is killed.
//!
//! | file | idea |
//! |---|---|
//! | `isolation.rs` | from the beginning to the end, and the recovery after a process that was killed |
//! | `change.rs` | what is changed, for one version or the other |
//! | `partition.rs` | version 2: a partition for this process |
//! | `shield.rs` | version 1: a cpuset for all others |
//! | `group.rs` | how the group of either is created and removed |
//! | `affinities.rs` | affinities of tasks, which a move between cpusets of version 1 changes |
//! | `hierarchy.rs` | where cpusets are mounted, and of which version they are |
//! | `record.rs` | the file with what was changed |
//! | `cpu_list.rs` | lists of CPUs in the kernel's form |
//! | `host.rs` | files and tasks of this host, which tests replace |
//! | `error.rs` | why host CPUs could not be isolated |

mod affinities;
mod change;
mod cpu_list;
mod error;
mod group;
mod hierarchy;
mod host;
mod isolation;
mod partition;
mod record;
mod shield;

#[cfg(test)]
mod fake_host;
#[cfg(test)]
mod tests;

pub use error::IsolationError;
pub use isolation::{Isolation, recover};
pub use record::RECORD;
pub use shield::Remaining;
