//! The numbers of a pool, copied for the metrics.

use std::sync::{Arc, Weak};

use baton_machine::GuestRecord;
use baton_observe::metrics::{ExecutorGauges, GuestNow, MetricsSnapshot, MetricsSource, PoolNow};
use baton_os::sys;
use vcpu_sched::{CpuId, CpuSet};

use super::guest_names::GuestNames;
use super::pool::Pool;

/// Copies the numbers of a pool.
#[derive(Debug)]
pub(super) struct PoolMetrics {
    pool: Weak<Pool>,
    host_cpus: Vec<usize>,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl PoolMetrics {
    pub(super) fn new(pool: &Arc<Pool>, gauges: Vec<Arc<ExecutorGauges>>) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            host_cpus: pool.host_cpus().to_vec(),
            gauges,
        }
    }
}

impl MetricsSource for PoolMetrics {
    fn snapshot(&self) -> MetricsSnapshot {
        let cpus = self.gauges.iter().map(|gauges| gauges.read());
        let mut snapshot = MetricsSnapshot {
            cpus: cpus.map(|counts| (counts, 0)).collect(),
            ..MetricsSnapshot::default()
        };
        snapshot.names.host_cpus.clone_from(&self.host_cpus);
        let Some(pool) = self.pool.upgrade() else {
            return snapshot;
        };
        let (guests, members) = copy(&pool, &mut snapshot);
        keep(&mut snapshot.cpus, members);
        keep(&mut snapshot.names.host_cpus, members);
        keep(&mut snapshot.pool.usable, members);
        // Names are copied without the lock.
        snapshot.guests = guests.records().map(|record| guest_now(record)).collect();
        snapshot.names.vcpus = guests.vcpu_names();
        snapshot
    }
}

/// Keeps of `rows`, one for each CPU that the pool has or can get, those of `members`, which it has.
fn keep<T>(rows: &mut Vec<T>, members: CpuSet) {
    let mut cpus = (0..).map(CpuId);
    rows.retain(|_| cpus.next().is_some_and(|cpu| members.contains(cpu)));
}

/// Copies the numbers of `pool`. Returns the guests to which they belong, and the CPUs that the pool has.
fn copy(pool: &Pool, snapshot: &mut MetricsSnapshot) -> (GuestNames, CpuSet) {
    let _not_preempted = pool.priority.not_preempted();
    let state = pool.lock();
    let now = sys::monotonic_ns();
    let guests = state.names();
    let vcpus = guests.vcpus();
    snapshot.pool = PoolNow {
        usable: usable(pool),
        ..PoolNow::of(&*state.sched, &vcpus)
    };
    let tally = state.sched.events().tally.as_ref();
    for id in vcpus {
        let counted = tally.and_then(|tally| tally.vcpus.get(id.index()));
        let counted = counted
            .map(|counted| counted.until(now))
            .unwrap_or_default();
        snapshot.vcpus.push((state.sched.counters(id), counted));
    }
    if let Some(tally) = tally {
        for ((_, kicks), counted) in snapshot.cpus.iter_mut().zip(&tally.kicks) {
            *kicks = *counted;
        }
    }
    (guests, state.sched.pool_cpus())
}

/// What the metrics show of a guest.
fn guest_now(record: &GuestRecord) -> GuestNow {
    GuestNow {
        name: record.name.clone(),
        hints: record.hints_in_force().to_string(),
        restarts: record.restarts().into(),
    }
}

fn usable(pool: &Pool) -> Vec<bool> {
    let cpus = pool.host_cpus().iter();
    cpus.map(|&cpu| !pool.usable_cpus.is_away(cpu)).collect()
}
