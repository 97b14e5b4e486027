//! A vCPU: a value that exactly one thread owns at a time and runs by calling [`Vcpu::run`].
//!
//! | file | idea |
//! |---|---|
//! | `state.rs` | the value |
//! | `run.rs` | one entry into the guest, and the exit that ends it |
//! | `failure.rs` | what KVM reports about a vCPU that cannot go on |
//! | `exit.rs` | why a vCPU left the guest, and how often |
//! | `immediate_exit.rs` | making it leave, from another thread or a signal handler |

mod exit;
mod failure;
mod immediate_exit;
mod run;
mod state;

pub use exit::{Exit, ExitCounts};
pub use immediate_exit::ImmediateExit;
pub use state::Vcpu;
