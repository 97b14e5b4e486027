//! Whether the memory that the guests may use exists. Guests share the process, and a kernel that runs out of
//! memory ends the process with all of them.
//!
//! | file | idea |
//! |---|---|
//! | `check.rs` | the check of a run's configuration |
//! | `room.rs` | how much memory this process may use |
//! | `cgroup.rs` | the memory cgroups of this process |
//! | `proc_file.rs` | reading the kernel's files |

mod cgroup;
mod check;
mod proc_file;
mod room;

pub use check::check;
pub use room::NotEnoughMemory;
