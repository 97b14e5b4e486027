//! `--sched host` and `--sched host-deadline`: a thread for each vCPU, and the host kernel decides.
//!
//! Other VMMs run vCPUs like this. It is kept as an honest baseline: nothing here knows about locks.
//!
//! | file | idea |
//! |---|---|
//! | `start.rs` | starts the threads, all or none, and stops them |
//! | `vcpu_loop.rs` | what a vCPU's thread does |
//! | `stop_request.rs` | making a thread leave `KVM_RUN` for good, wherever it is |
//! | `idle_wait.rs` | the wait of an idle vCPU for a wake |
//! | `placement.rs`, `deadline.rs` | affinity, or `SCHED_DEADLINE` |

mod deadline;
mod error;
mod idle_wait;
mod placement;
mod start;
mod start_gate;
mod stop_request;
pub(crate) mod vcpu_control;
pub(crate) mod vcpu_loop;

pub use error::HostSchedError;
pub use start::start;
