//! Baton: a KVM virtual machine monitor with its own CPU scheduler.
//!
//! [`machine`] is the virtual machine: guests, vCPUs, their few devices and the hint pages.
//! [`host_sched`] runs vCPUs the usual way, a thread each, as the baseline; [`run`] ties a run
//! together from a [`config::RunConfig`] to a [`summary::RunSummary`]; [`mod@bench`] compares many of
//! them.

mod abandon;
pub mod bench;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod devices;
mod directory;
pub mod executor;
pub mod exit_status;
pub mod files;
pub mod halt;
pub mod host_memory;
pub mod host_sched;
mod listener;
pub mod machine;
pub mod metrics;
mod nospec;
pub mod output;
pub mod run;
pub mod say;
pub mod signals;
pub mod sim_command;
pub mod summary;
pub mod sys;
pub mod timeline;
pub mod top;
pub mod trace;
mod tty;
pub mod units;
pub mod waits;
