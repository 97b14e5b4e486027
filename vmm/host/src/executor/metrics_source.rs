//! The numbers of a pool, copied for the metrics.

use std::sync::{Arc, Weak};

use baton_machine::GuestRecord;
use baton_observe::metrics::{ExecutorGauges, MetricsSnapshot, MetricsSource, PoolNow};
use baton_observe::trace::Names;
use baton_os::sys;
use vcpu_sched::VcpuId;

use super::pool::Pool;

/// Copies the numbers of a pool.
#[derive(Debug)]
pub(super) struct PoolMetrics {
    pool: Weak<Pool>,
    names: Names,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl PoolMetrics {
    pub(super) fn new(pool: &Arc<Pool>, names: Names, gauges: Vec<Arc<ExecutorGauges>>) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            names,
            gauges,
        }
    }
}

impl MetricsSource for PoolMetrics {
    fn snapshot(&self) -> MetricsSnapshot {
        let count = self.names.vcpus.len();
        let mut vcpus = Vec::with_capacity(count);
        let mut kicks = vec![0; self.gauges.len()];
        let mut pool_now = PoolNow::default();
        let mut records = Vec::new();
        if let Some(pool) = self.pool.upgrade() {
            let _not_preempted = pool.priority.not_preempted();
            let state = pool.lock();
            let now = sys::monotonic_ns();
            pool_now = PoolNow {
                usable: usable(&pool, &self.names),
                ..PoolNow::of(&*state.sched, count)
            };
            records = state.records();
            let tally = state.sched.events().tally.as_ref();
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
        MetricsSnapshot {
            names: self.names.clone(),
            guests: records.iter().map(|record| hint_source(record)).collect(),
            vcpus,
            cpus,
            pool: pool_now,
        }
    }
}

/// The name of a guest, and where its hints come from at the moment.
fn hint_source(record: &GuestRecord) -> (String, String) {
    (record.name.clone(), record.hints_in_force().to_string())
}

fn usable(pool: &Pool, names: &Names) -> Vec<bool> {
    let cpus = names.host_cpus.iter();
    cpus.map(|&cpu| !pool.usable_cpus.is_away(cpu)).collect()
}
