//! Why a run under Baton's own scheduler could not start.

use std::io;

use baton_observe::control::ControlError;
use baton_observe::metrics::MetricsError;
use baton_observe::trace::TraceError;
use thiserror::Error;
use vcpu_sched::MAX_CPUS;

use super::executor_priority::PriorityError;
use super::join_error::JoinError;
use super::late_halts::LateHaltsError;

/// Baton's own scheduler could not start.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The run has more host CPUs than one pool takes.
    #[error("{0} host CPUs are more than the {MAX_CPUS} of one pool: name fewer with --host-cpus")]
    TooManyCpus(usize),
    /// A guest could not join the pool.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// There are reservations, and this host reports halts late.
    #[error(transparent)]
    LateHalts(#[from] LateHaltsError),
    /// The host refuses the priority of executors.
    #[error(transparent)]
    Priority(#[from] PriorityError),
    /// The trace could not begin.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The metrics could not be offered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The control socket could not be offered.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The host refused something that executors need.
    #[error("cannot set up {what}: {source}")]
    Host {
        /// What the host refused.
        what: &'static str,
        /// The host's reason.
        source: io::Error,
    },
}

impl ExecutorError {
    /// The host refused `what`.
    pub(super) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
