//! The state of a pool, copied for the control socket.

use std::sync::{Arc, Weak};

use baton_observe::control::{Source, snapshot};
use baton_observe::metrics::gauges::ExecutorGauges;
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

    fn cpu(&self, number: usize, view: Option<CpuView>, pool: &Pool) -> snapshot::Cpu {
        let counts = self.gauges.get(number).map(|gauges| gauges.read());
        let counts = counts.unwrap_or_default();
        snapshot::Cpu {
            cpu: self.names.host_cpus[number],
            away: pool.usable_cpus.is_away(self.names.host_cpus[number]),
            run: view.and_then(|view| self.name(view.curr)),
            donor: view.and_then(|view| self.name(view.donor)),
            lock: view.and_then(|view| (view.curr != view.donor).then_some(view.lock)),
            busy_ns: counts.busy_ns,
            idle_ns: counts.idle_ns,
            host_steal_ns: counts.host_steal_ns,
        }
    }

    fn vcpu(&self, id: VcpuId, view: VcpuView, c: Counters, now: u64) -> snapshot::Vcpu {
        let (state, cpu) = match view.doing {
            Doing::Halted => ("halted", None),
            Doing::Runnable => ("runnable", None),
            Doing::Throttled => ("throttled", None),
            Doing::Parked => ("parked", None),
            Doing::Carrying(cpu) => ("carrying", Some(cpu)),
            Doing::Running(cpu) => ("running", Some(cpu)),
            Doing::Gone => ("gone", None),
        };
        let name = &self.names.vcpus[id.index()];
        snapshot::Vcpu {
            guest: name.guest_name.clone(),
            index: name.index,
            state: state.to_owned(),
            cpu: cpu.and_then(|cpu| self.names.host_cpus.get(cpu.index()).copied()),
            waits_for: view.waits_for.and_then(|(holder, _)| self.name(holder)),
            reservation: view
                .reserved
                .map(|(reservation, ..)| reservation.to_string()),
            reduced_to: view.reduced.map(|(reservation, _)| reservation.to_string()),
            displaced: view.displaced,
            budget_ns: view.reserved.map(|(_, budget, _)| budget),
            deadline_in_ns: view
                .reserved
                .and_then(|(.., deadline)| deadline.checked_sub(now)),
            ran_ns: c.runtime_ns,
            charged_ns: c.charged_ns,
            elsewhere_ns: c.elsewhere_ns,
            donated_ns: c.donated_ns,
            received_ns: c.received_ns,
            waited_ns: c.waited_ns,
            throttled_wait_ns: c.throttled_wait_ns,
            host_steal_ns: c.host_steal_ns,
            throttled_ns: c.throttled_ns,
            switches: c.switches,
            migrations: c.migrations,
            preemptions: c.preemptions,
            holder_preemptions: c.holder_preemptions,
            proxied: c.proxied,
            deferrals: c.deferrals,
            deadline_misses: c.deadline_misses,
        }
    }
}

impl Source for ControlSource {
    fn look(&self) -> snapshot::Snapshot {
        let mut snapshot = snapshot::Snapshot {
            version: snapshot::VERSION,
            pid: std::process::id(),
            ..snapshot::Snapshot::default()
        };
        let Some(pool) = self.pool.upgrade() else {
            return snapshot;
        };
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
        // Names are formatted without the lock.
        drop(state);
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
