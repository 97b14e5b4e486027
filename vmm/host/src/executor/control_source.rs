//! The state of a pool, copied for the control socket.

use std::sync::{Arc, Weak};

use baton_machine::GuestRecord;
use baton_observe::control::SnapshotSource;
use baton_observe::control::snapshot::{
    self, CpuSnapshot, GuestSnapshot, PoolSnapshot, VcpuSnapshot,
};
use baton_observe::metrics::ExecutorGauges;
use baton_observe::trace::Names;
use baton_os::sys;
use vcpu_sched::{Counters, CpuId, CpuView, Doing, VcpuId, VcpuView};

use super::pool::Pool;

/// Copies the state of a pool.
#[derive(Debug)]
pub(super) struct ControlSource {
    pool: Weak<Pool>,
    names: Names,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl ControlSource {
    pub(super) fn new(pool: &Arc<Pool>, names: Names, gauges: Vec<Arc<ExecutorGauges>>) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            names,
            gauges,
        }
    }

    fn name(&self, id: VcpuId) -> Option<String> {
        let name = self.names.vcpus.get(id.index())?;
        Some(format!("{}/{}", name.guest_name, name.index))
    }

    fn cpu(&self, number: usize, view: Option<CpuView>, pool: &Pool) -> CpuSnapshot {
        let counts = self.gauges.get(number).map(|gauges| gauges.read());
        let counts = counts.unwrap_or_default();
        CpuSnapshot {
            cpu: self.names.host_cpus[number],
            away: pool.usable_cpus.is_away(self.names.host_cpus[number]),
            run: view.and_then(|view| self.name(view.curr)),
            donor: view.and_then(|view| self.name(view.donor)),
            lock: view
                .filter(|view| view.curr != view.donor && !view.is_suspect)
                .map(|view| view.lock),
            suspect: view.is_some_and(|view| view.is_suspect),
            busy_ns: counts.busy_ns,
            idle_ns: counts.idle_ns,
            host_steal_ns: counts.host_steal_ns,
        }
    }

    fn vcpu(&self, id: VcpuId, view: VcpuView, c: Counters, now: u64) -> VcpuSnapshot {
        let (state, cpu) = match view.doing {
            Doing::Halted => ("halted", None),
            Doing::Runnable => ("runnable", None),
            Doing::Throttled => ("throttled", None),
            Doing::Parked => ("parked", None),
            Doing::Carrying(cpu) => ("carrying", Some(cpu)),
            Doing::Running(cpu) => ("running", Some(cpu)),
            Doing::Paused => ("paused", None),
            Doing::Gone => ("gone", None),
        };
        let name = &self.names.vcpus[id.index()];
        VcpuSnapshot {
            guest: name.guest_name.clone(),
            index: name.index,
            state: state.to_owned(),
            cpu: cpu.and_then(|cpu| self.names.host_cpus.get(cpu.index()).copied()),
            waits_for: view.waits_for.and_then(|(holder, _)| self.name(holder)),
            waits_for_suspect: view.is_suspicion,
            spins: view.spins,
            reservation: view
                .reserved
                .map(|(reservation, ..)| reservation.to_string()),
            reduced_to: view.reduced.map(|(reservation, _)| reservation.to_string()),
            displaced: view.displaced,
            budget_ns: view.reserved.map(|(_, budget, _)| budget),
            deadline_in_ns: view
                .reserved
                .and_then(|(.., deadline)| deadline.checked_sub(now)),
            counters: (&c).into(),
        }
    }
}

fn guest(record: &GuestRecord) -> GuestSnapshot {
    GuestSnapshot {
        name: record.name.clone(),
        hints: record.hints_in_force().to_string(),
    }
}

impl SnapshotSource for ControlSource {
    fn snapshot(&self) -> PoolSnapshot {
        let mut snapshot = PoolSnapshot {
            version: snapshot::VERSION,
            pid: std::process::id(),
            ..PoolSnapshot::default()
        };
        let Some(pool) = self.pool.upgrade() else {
            return snapshot;
        };
        let _not_preempted = pool.priority.not_preempted();
        let state = pool.lock();
        snapshot.now_ns = sys::monotonic_ns();
        snapshot.proxy = state.sched.config().proxy;
        let cpus: Vec<_> = (0..self.names.host_cpus.len())
            .map(|number| state.sched.view_cpu(CpuId(number as u32)))
            .collect();
        let vcpus: Vec<_> = (0..self.names.vcpus.len() as u32)
            .map(VcpuId)
            .filter_map(|id| {
                let counters = state.sched.counters_at(id, snapshot.now_ns);
                Some((id, state.sched.view(id)?, counters))
            })
            .collect();
        let records = state.records();
        // Names are formatted without the lock.
        drop(state);
        snapshot.guests = records.iter().map(|record| guest(record)).collect();
        snapshot.cpus = (0..)
            .zip(cpus)
            .map(|(number, view)| self.cpu(number, view, &pool))
            .collect();
        snapshot.vcpus = vcpus
            .into_iter()
            .map(|(id, view, counters)| self.vcpu(id, view, counters, snapshot.now_ns))
            .collect();
        snapshot
    }
}
