//! Executors: our own policy decides, on every host CPU of the pool, which vCPU runs.
//!
//! | file | idea |
//! |---|---|
//! | `main_loop.rs` | the loop: ask, run, account, handle, ask again |
//! | `pool.rs` | the policy and the vCPUs that nobody runs, under one lock |
//! | `exit_latency.rs` | how long the way out of the guest is, and so the way in |
//! | `kick.rs` | making an executor look again, without losing a kick |
//! | `vcpu_runner.rs` | running a vCPU on the executor's thread, or on its own (`vcpu_threads.rs`, `handoff.rs`) |
//! | `run_loop.rs` | what a thread needs to run vCPUs (`signal.rs`, `timer.rs`, `presence.rs`, halts) |
//! | `late_halts.rs` | what is not run where halts are noticed late |
//! | `probes.rs`, `observers.rs` | who hears the policy: timeline, trace, metrics |
//! | `host_cpu_watcher.rs`, `pins.rs` | host CPUs that go away and come back, and threads that were pinned there |
//! | `halt_threads.rs` | where halted vCPUs sleep until an interrupt wakes them |

mod doorbell_storm;
mod exit_latency;
mod halt_threads;
mod handoff;
mod host_cpu_watcher;
mod kick;
mod kick_target;
mod late_halts;
mod main_loop;
mod observers;
mod pins;
mod policy_ids;
mod pool;
mod presence;
mod probes;
mod run_loop;
mod signal;
pub mod start;
mod timer;
mod vcpu_runner;
mod vcpu_threads;
mod workers;

pub use late_halts::{LateHaltsError, LateHaltsReason};
pub use main_loop::ExecutorReport;
pub use start::ExecutorError;
pub use start::start;
