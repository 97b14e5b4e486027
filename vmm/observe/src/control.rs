//! The control socket of a run: its state at the moment, for `baton top` and for scripts.
//!
//! It speaks HTTP over a Unix socket, so `curl --unix-socket PATH http://baton/snapshot` works too. The answer is
//! [`snapshot::PoolSnapshot`] as JSON (`docs/control.md`).
//!
//! | file | idea |
//! |---|---|
//! | `snapshot.rs` | the answer |
//! | `socket.rs` | the socket of this run |
//! | `directories.rs` | the directories in which sockets are |
//! | `runtime_dir.rs` | what makes such a directory safe, and removing sockets that killed runs left in it |
//! | `instances.rs` | the runs that listen there |

mod directories;
mod instances;
mod runtime_dir;
pub mod snapshot;
mod socket;

pub use directories::directories;
pub use instances::instances;
pub use socket::{ControlError, ControlSocket, SnapshotSource};
