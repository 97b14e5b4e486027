//! Executors: our own policy decides, on every host CPU of the pool, which vCPU runs.
//!
//! | file | idea |
//! |---|---|
//! | `turns.rs` | the loop: ask, run, account, handle, ask again |
//! | `pool.rs` | the policy and the vCPUs that nobody runs, under one lock |
//! | `crossing.rs` | how long the way out of the guest is, and so the way in |
//! | `kick.rs` | making an executor look again, without losing a kick |
//! | `seam.rs` | running a vCPU on the executor's thread, or on its own (`vcpu_thread.rs`, `handoff.rs`) |
//! | `lane.rs` | what a thread needs to run vCPUs (`signal.rs`, `timer.rs`, `presence.rs`, halts) |
//! | `late_halts.rs` | what is not run where halts are noticed late |
//! | `listener.rs`, `observed.rs` | who hears the policy: timeline, trace, metrics |
//! | `host_cpus.rs`, `pins.rs` | host CPUs that go away and come back, and threads that were pinned there |
//! | `halt_threads.rs` | where halted vCPUs sleep until an interrupt wakes them |

mod crossing;
mod halt_threads;
mod handoff;
mod helpers;
mod hints;
mod host_cpus;
mod kick;
mod lane;
mod late_halts;
mod listener;
mod observed;
mod pins;
mod pool;
mod presence;
mod seam;
mod signal;
pub mod start;
mod station;
mod timer;
mod turns;
mod vain;
mod vcpu_thread;

pub use late_halts::{LateHaltsError, LateHaltsReason};
pub use start::ExecutorError;
pub use start::start;
pub use turns::ExecutorReport;
