//! Which process owns a host CPU.
//!
//! Two schedulers that each promise the CPU time of the same host CPU cannot both keep their promises. So a
//! process that schedules vCPUs on a host CPU locks a file that stands for the CPU. The kernel releases the lock
//! when the process ends, however it ends; a file without a lock means nothing.
//!
//! | file | idea |
//! |---|---|
//! | `place.rs` | the directory of the files, which decides whose processes see each other |
//! | `owner.rs` | the text in a file: which process has the lock |
//! | `owner_file.rs` | the file and its lock |
//! | `owned_cpus.rs` | the host CPUs of this process |

mod owned_cpus;
mod owner;
mod owner_file;
mod place;

pub use owned_cpus::{OwnedCpus, TakenCpus};
pub use owner::Owner;
pub(crate) use owner_file::{Attempt, OwnerFile};
pub use place::{HOST_DIRECTORY, Place, PlaceError, VARIABLE};
