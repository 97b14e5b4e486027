//! What to run: plain values, read from flags or from a TOML file ([`mod@file`]).
//!
//! | file | idea |
//! |---|---|
//! | `run.rs` | a whole run |
//! | `sched.rs` | how vCPUs are scheduled |
//! | `executor_priority.rs` | the priority of executors for the host's scheduler |
//! | `output.rs` | what a run prints at its end |
//! | `control.rs`, `metrics_target.rs` | where a run offers its control socket and its metrics |
//! | `guest.rs` | a guest |
//! | `console.rs` | the console of a guest |
//! | `disk.rs`, `net.rs`, `vsock.rs` | the devices of a guest |
//! | `identity.rs` | serial numbers of disks and addresses of network interfaces |
//! | `rate.rs` | rate limits of devices |
//! | `file.rs` | the TOML file |
//! | `units.rs`, `values.rs` | how quantities and values of flags are written |
//! | `validate.rs` | what flags and files cannot rule out one by one |
//! | `error.rs` | the error of all of these |

mod console;
mod control;
mod disk;
mod error;
mod executor_priority;
pub mod file;
mod guest;
pub mod identity;
mod metrics_target;
mod net;
mod output;
pub mod rate;
mod run;
mod sched;
pub mod units;
mod validate;
pub mod values;
mod vsock;

pub use console::ConsoleConfig;
pub use control::Control;
pub use disk::DiskConfig;
pub use error::ConfigError;
pub use executor_priority::{ExecutorPriority, ParseExecutorPriorityError};
pub use guest::{
    DEFAULT_WEIGHT, GuestConfig, HintSource, KernelSource, MAX_CMDLINE, MAX_MEMORY, MAX_VCPUS,
    MIN_MEMORY, OnReboot, RestartPolicy,
};
pub use metrics_target::MetricsTarget;
pub use net::NetConfig;
pub use output::{SummaryForm, Timeline};
pub use run::{DEFAULT_DEFER, DEFAULT_SHUTDOWN_TIMEOUT, DEFAULT_SLICE, RunConfig};
pub use sched::{Given, LateHalts, SchedMode, VcpuThreads};
pub use vcpu_sched::Reservation;
pub use vsock::VsockConfig;
