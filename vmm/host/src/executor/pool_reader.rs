//! Reads the state of a pool while it runs, for whoever started the pool.

use std::sync::{Arc, Weak};

use baton_observe::control::SnapshotSource;
use baton_observe::control::snapshot::PoolSnapshot;
use baton_observe::metrics::{ExecutorGauges, MetricsSnapshot, MetricsSource};

use vcpu_sched::CpuId;

use super::control_source::ControlSource;
use super::metrics_source::PoolMetrics;
use super::pool::Pool;

/// Reads the state of a pool.
#[derive(Debug)]
pub struct PoolReader {
    pool: Weak<Pool>,
    gauges: Vec<Arc<ExecutorGauges>>,
    control: ControlSource,
    metrics: PoolMetrics,
}

impl PoolReader {
    pub(super) fn new(pool: &Arc<Pool>, gauges: Vec<Arc<ExecutorGauges>>) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            control: ControlSource::new(pool, gauges.clone()),
            metrics: PoolMetrics::new(pool, gauges.clone()),
            gauges,
        }
    }

    /// The state as the control socket has it. The pool's lock is held for the copy.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        self.control.snapshot()
    }

    /// The counters of the metrics. The pool's lock is held for the copy.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot()
    }

    /// How often each executor has had the policy decide since it started, with the number of its CPU in the policy.
    #[must_use]
    pub fn decisions(&self) -> Vec<(CpuId, u64)> {
        let Some(pool) = self.pool.upgrade() else {
            return Vec::new();
        };
        let members = pool.members();
        let all = (0..).map(CpuId).zip(&self.gauges);
        let members = all.filter(|&(cpu, _)| members.contains(cpu));
        members
            .map(|(cpu, gauges)| (cpu, gauges.read().decisions))
            .collect()
    }

    /// Makes each executor have the policy decide again, soon. One that does not has hung.
    pub fn kick_all(&self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        for cpu in pool.members().iter() {
            pool.kick_target(cpu).kick();
        }
    }
}
