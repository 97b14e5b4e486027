//! What may watch executors from outside: a trace, metrics. Started with them, ended after them.

use std::sync::{Arc, Weak};

use vcpu_sched::{CpuId, VcpuId};

use super::listener::Listener;
use super::pool::Pool;
use super::recorder::Recorder;
use super::start::ExecutorError;
use crate::config::RunConfig;
use crate::machine::Exit;
use crate::metrics::gauges::ExecutorGauges;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::tally::Tally;
use crate::metrics::{Metrics, Source};
use crate::sys;
use crate::trace::record::{Port, What};
use crate::trace::{Names, Tracing};

/// What one executor tells by itself, outside the pool's lock.
#[derive(Debug, Default)]
pub(crate) struct Tells {
    pub(crate) trace: Option<Port>,
    pub(crate) gauges: Option<Arc<ExecutorGauges>>,
}

impl Tells {
    pub(crate) fn exit(&mut self, cpu: CpuId, vcpu: VcpuId, exit: &Exit) {
        if let Some(trace) = &mut self.trace {
            trace.record(
                sys::monotonic_ns(),
                What::Exit {
                    cpu,
                    vcpu,
                    kind: exit.into(),
                },
            );
        }
        if let Some(gauges) = &self.gauges {
            gauges.exit(exit.into());
        }
    }
}

/// The watchers of a run.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    names: Names,
    tracing: Option<Tracing>,
    metrics: Option<Metrics>,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl Observed {
    /// Starts the trace, if one is wanted. Gives the policy's listener, and what each executor
    /// tells.
    pub(crate) fn start(
        config: &RunConfig,
        names: Names,
    ) -> Result<(Self, Listener, Vec<Tells>), ExecutorError> {
        let cpus = names.host_cpus.len();
        let mut listener = Listener {
            recorder: Recorder::new(config.timeline),
            ..Listener::default()
        };
        let mut tells: Vec<Tells> = (0..cpus).map(|_| Tells::default()).collect();
        let mut gauges = Vec::new();
        if config.metrics.is_some() {
            listener.tally = Some(Tally::new(cpus, names.vcpus.len()));
            for tell in &mut tells {
                gauges.push(Arc::clone(tell.gauges.insert(Arc::default())));
            }
        }
        let mut tracing = None;
        if let Some(path) = &config.trace {
            let (started, ports) = Tracing::start(path, &names)?;
            tracing = Some(started);
            listener.trace = Some(ports.policy);
            for (tell, port) in tells.iter_mut().zip(ports.executors) {
                tell.trace = Some(port);
            }
        }
        Ok((
            Self {
                names,
                tracing,
                metrics: None,
                gauges,
            },
            listener,
            tells,
        ))
    }

    /// Offers the metrics of `pool`, if they are wanted.
    pub(crate) fn offer(
        &mut self,
        config: &RunConfig,
        pool: &Arc<Pool>,
    ) -> Result<(), ExecutorError> {
        if let Some(target) = &config.metrics {
            let source = PoolNumbers {
                pool: Arc::downgrade(pool),
                names: self.names.clone(),
                gauges: self.gauges.clone(),
            };
            self.metrics = Some(Metrics::start(target, source)?);
        }
        Ok(())
    }

    /// Ends both. The run itself is over and well; what went wrong with watching it is said on
    /// standard error. Nobody may tell anything any more.
    pub(crate) fn finish(&mut self) {
        if let Some(Err(error)) = self.metrics.take().map(Metrics::finish) {
            eprintln!("baton: {error}");
        }
        if let Some(Err(error)) = self.tracing.take().map(Tracing::finish) {
            eprintln!("baton: {error}");
        }
    }
}

/// Copies the numbers of a pool.
#[derive(Debug)]
struct PoolNumbers {
    pool: Weak<Pool>,
    names: Names,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl Source for PoolNumbers {
    fn snapshot(&self) -> Snapshot {
        let count = self.names.vcpus.len();
        let mut vcpus = Vec::with_capacity(count);
        let mut kicks = vec![0; self.gauges.len()];
        if let Some(pool) = self.pool.upgrade() {
            let state = pool.lock();
            let now = sys::monotonic_ns();
            let tally = state.sched.events.tally.as_ref();
            for id in (0..count as u32).map(VcpuId) {
                let counted = tally.and_then(|tally| tally.vcpus.get(id.index()));
                let counted = counted
                    .map(|counted| counted.until(now))
                    .unwrap_or_default();
                vcpus.push((state.sched.counters(id), counted));
            }
            if let Some(tally) = tally {
                kicks.copy_from_slice(&tally.kicks);
            }
        }
        let cpus = self
            .gauges
            .iter()
            .map(|gauges| gauges.read())
            .zip(kicks)
            .collect();
        Snapshot {
            names: self.names.clone(),
            vcpus,
            cpus,
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.finish();
    }
}
