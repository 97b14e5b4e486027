//! What observes a run from outside: a trace, metrics, the control socket. They begin with the executors
//! and end after them.

use std::sync::Arc;

use baton_config::{Control, RunConfig};
use baton_observe::control::ControlSocket;
use baton_observe::metrics::{ExecutorGauges, Metrics, Tally};
use baton_observe::recorder::Recorder;
use baton_observe::trace::{JoinedNames, Names, PreparedTrace, TraceFile, Tracing};

use super::control_source::ControlSource;
use super::error::ExecutorError;
use super::metrics_source::PoolMetrics;
use super::pool::Pool;
use super::probes::{ExecutorProbes, PolicyProbes};

/// Who reads the counters of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The observers that are configured.
    AsConfigured,
    /// Whoever started the pool, too.
    Always,
}

/// The observers of a run.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    /// A trace whose run has not begun.
    prepared: Option<PreparedTrace>,
    tracing: Option<Tracing>,
    metrics: Option<Metrics>,
    control: Option<ControlSocket>,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl Observers {
    /// Prepares the observers that `config` has, with a trace in `trace` of the vCPUs in `names`. Returns the probes of the policy
    /// and of each executor, too. Nothing can be seen from outside before [`Observers::begin`].
    pub(crate) fn prepare(
        config: &RunConfig,
        served: Served,
        names: &Names,
        trace: Option<TraceFile>,
    ) -> (Self, PolicyProbes, Vec<ExecutorProbes>) {
        let cpus = names.host_cpus.len();
        let mut policy = PolicyProbes {
            recorder: Recorder::new(config.timeline),
            ..PolicyProbes::default()
        };
        let mut executors: Vec<_> = (0..cpus).map(|_| ExecutorProbes::default()).collect();
        let mut gauges = Vec::new();
        let is_served = served == Served::Always;
        if is_served || config.metrics.is_some() {
            policy.tally = Some(Tally::new(cpus));
        }
        if is_served || config.metrics.is_some() || config.control != Control::Off {
            for executor in &mut executors {
                gauges.push(Arc::clone(executor.gauges.insert(Arc::default())));
            }
        }
        let prepared = trace.map(|file| {
            let (prepared, probes) = PreparedTrace::new(file, names);
            policy.trace = Some(probes.policy);
            for (executor, probe) in executors.iter_mut().zip(probes.executors) {
                executor.trace = Some(probe);
            }
            prepared
        });
        let observers = Self {
            prepared,
            tracing: None,
            metrics: None,
            control: None,
            gauges,
        };
        (observers, policy, executors)
    }

    /// The counters of each executor, if anybody reads them.
    pub(crate) fn gauges(&self) -> Vec<Arc<ExecutorGauges>> {
        self.gauges.clone()
    }

    /// Where the names of vCPUs are left that join from now on, if there is a trace.
    pub(crate) fn joined_names(&self) -> Option<Arc<JoinedNames>> {
        self.prepared.as_ref().map(PreparedTrace::joined_names)
    }

    /// Offers what is configured of `pool`, and begins the trace. To be called when nothing else can keep
    /// the guests from running: the outputs of an earlier run are replaced here, and a run that is refused
    /// leaves them alone.
    pub(crate) fn begin(
        &mut self,
        config: &RunConfig,
        pool: &Arc<Pool>,
    ) -> Result<(), ExecutorError> {
        let gauges = &self.gauges;
        if let Some(target) = &config.metrics {
            let source = PoolMetrics::new(pool, gauges.clone());
            self.metrics = Some(Metrics::start(target, source)?);
        }
        let source = ControlSource::new(pool, gauges.clone());
        self.control = ControlSocket::start(&config.control, source)?;
        // Last, because it cannot fail any more once the file is empty.
        self.tracing = self.prepared.take().map(PreparedTrace::begin).transpose()?;
        Ok(())
    }

    /// Ends all of them; no probe may be used any more. The run itself is over and well, so errors here are
    /// only reported on standard error.
    pub(crate) fn finish(&mut self) {
        drop(self.control.take());
        if let Some(Err(error)) = self.metrics.take().map(Metrics::finish) {
            baton_os::say!("baton: {error}");
        }
        if let Some(Err(error)) = self.tracing.take().map(Tracing::finish) {
            baton_os::say!("baton: {error}");
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.finish();
    }
}
