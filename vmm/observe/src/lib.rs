//! Observers of a pool: they record what the policy decides and what executors do, and show it.
//!
//! | module | output |
//! |---|---|
//! | [`trace`] | `--trace`: every decision and every exit, in Perfetto's format |
//! | [`metrics`] | `--metrics`: counters for Prometheus |
//! | [`control`] | the control socket: the state of the pool now, for `baton top` |
//! | [`timeline`] | `--timeline`: the decisions around one moment, drawn as text |
//! | [`counters`] | the table of a vCPU's counters, from which the others take names and values |
//!
//! An executor needs three things from here:
//!
//! - *probes*, by which it records its own events ([`trace::ExitProbe`], [`metrics::ExecutorGauges`]);
//! - *listeners*, to which it passes the policy's events under the pool's lock ([`trace::PolicyProbe`],
//!   [`metrics::Tally`], [`recorder::Recorder`]);
//! - *sources*, which it implements so that observers can copy the pool's state while it runs
//!   ([`metrics::MetricsSource`], [`control::SnapshotSource`]).

pub mod control;
pub mod counters;
mod exit_kind;
mod http;
pub mod metrics;
mod names;
pub mod timeline;
pub mod trace;

pub use timeline::recorder;
