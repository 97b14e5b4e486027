//! The host threads that run vCPUs.
//!
//! | module | idea |
//! |---|---|
//! | [`commanded`] | a thread for each vCPU of a guest whose pool is another process |
//! | [`executor`] | a thread for each host CPU of the pool, which runs the vCPU that the policy picks |
//! | [`halt`] | vCPUs that are halted, and how the policy learns that they wake |
//! | [`host_sched`] | a thread for each vCPU under the host kernel's scheduler, as the baseline |
//! | [`runner`] | what both are: they take guests (`ready_guest.rs`), and report at the end (`report.rs`) |
//! | `sync` | locks and atomics, which under loom are loom's |

pub mod commanded;
pub mod executor;
pub mod halt;
pub mod host_sched;
mod ready_guest;
mod report;
pub mod runner;
mod sync;
