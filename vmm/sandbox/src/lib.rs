//! The sandbox of a guest's process, which a process enters before it has threads and before it reads anything
//! that a guest has written. From then on it sees an almost empty file system, has no network and no privileges, and
//! makes few system calls.
//!
//! | file | idea |
//! |---|---|
//! | `sandbox.rs` | what the process keeps, and the steps by which it gives up the rest |
//! | `reach.rs` | a file or a directory that stays reachable |
//! | `namespaces.rs` | mounts, network and names of its own |
//! | `new_root.rs` | the root directory, in which there is only what stays reachable |
//! | `privileges.rs` | user, groups and capabilities |
//! | `limits.rs` | limits of resources |
//! | `system_calls.rs` | the system calls that stay permitted |
//! | `ioctls.rs` | the requests that stay permitted |
//! | `violation.rs` | the end of a process that makes another system call |
//! | `error.rs` | why a process cannot enter |

mod error;
mod ioctls;
mod limits;
mod namespaces;
mod new_root;
mod privileges;
mod reach;
mod sandbox;
mod system_calls;
mod violation;

pub use error::SandboxError;
pub use privileges::{NoSuchUser, User};
pub use reach::Reach;
pub use sandbox::Sandbox;
