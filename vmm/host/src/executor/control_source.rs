//! The state of a pool, copied for the control socket.

use std::sync::{Arc, Weak};

use baton_machine::GuestRecord;
use baton_observe::control::SnapshotSource;
use baton_observe::control::snapshot::{
    self, CpuSnapshot, GuestSnapshot, PoolSnapshot, VcpuSnapshot,
};
use baton_observe::metrics::ExecutorGauges;
use baton_observe::trace::VcpuName;
use baton_os::sys;
use vcpu_sched::{Counters, CpuView, Doing, VcpuId, VcpuView};

use super::guest_names::GuestNames;
use super::pool::Pool;

/// Copies the state of a pool.
#[derive(Debug)]
pub(super) struct ControlSource {
    pool: Weak<Pool>,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl ControlSource {
    pub(super) fn new(pool: &Arc<Pool>, gauges: Vec<Arc<ExecutorGauges>>) -> Self {
        Self {
            pool: Arc::downgrade(pool),
            gauges,
        }
    }

    fn cpu(
        &self,
        number: usize,
        view: Option<CpuView>,
        pool: &Pool,
        guests: &GuestNames,
    ) -> CpuSnapshot {
        let counts = self.gauges.get(number).map(|gauges| gauges.read());
        let counts = counts.unwrap_or_default();
        let cpu = pool.host_cpus()[number];
        CpuSnapshot {
            cpu,
            away: pool.usable_cpus.is_away(cpu),
            run: view.and_then(|view| name(guests, view.curr)),
            donor: view.and_then(|view| name(guests, view.donor)),
            lock: view
                .filter(|view| view.curr != view.donor && !view.is_suspect)
                .map(|view| view.lock),
            suspect: view.is_some_and(|view| view.is_suspect),
            busy_ns: counts.busy_ns,
            idle_ns: counts.idle_ns,
            host_steal_ns: counts.host_steal_ns,
        }
    }
}

fn name(guests: &GuestNames, id: VcpuId) -> Option<String> {
    let name = guests.name(id)?;
    Some(format!("{}/{}", name.guest_name, name.index))
}

/// A vCPU called `own` that does what `view` has.
fn vcpu(
    own: VcpuName,
    view: &VcpuView,
    counters: &Counters,
    now: u64,
    (pool, guests): (&Pool, &GuestNames),
) -> VcpuSnapshot {
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
    VcpuSnapshot {
        guest: own.guest_name,
        index: own.index,
        state: state.to_owned(),
        cpu: cpu.and_then(|cpu| pool.host_cpus().get(cpu.index()).copied()),
        waits_for: view.waits_for.and_then(|(holder, _)| name(guests, holder)),
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
        counters: counters.into(),
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
        let not_preempted = pool.priority.not_preempted();
        let state = pool.lock();
        snapshot.now_ns = sys::monotonic_ns();
        snapshot.proxy = state.sched.config().proxy;
        let cpus: Vec<_> = (state.sched.pool_cpus().iter())
            .map(|cpu| (cpu.index(), state.sched.view_cpu(cpu)))
            .collect();
        let guests = state.names();
        let vcpus: Vec<_> = guests
            .vcpus()
            .into_iter()
            .map(|id| {
                let counters = state.sched.counters_at(id, snapshot.now_ns);
                (state.sched.view(id), counters)
            })
            .collect();
        // Names are formatted without the lock.
        drop(state);
        drop(not_preempted);
        snapshot.guests = guests.records().map(|record| guest(record)).collect();
        snapshot.cpus = (cpus.into_iter())
            .map(|(number, view)| self.cpu(number, view, &pool, &guests))
            .collect();
        let named = guests.vcpu_names().into_iter().zip(vcpus);
        snapshot.vcpus = named
            .filter_map(|(name, (view, counters))| {
                let within = (&*pool, &guests);
                Some(vcpu(name, &view?, &counters, snapshot.now_ns, within))
            })
            .collect();
        snapshot
    }
}
