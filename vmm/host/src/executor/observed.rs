//! What may watch executors from outside: a trace, metrics. Started with them, ended after them.

use std::sync::{Arc, Weak};

use baton_config::Control;
use baton_config::RunConfig;
use baton_machine::Exit;
use baton_observe::control::snapshot;
use baton_observe::control::{Offer, Source as Look};
use baton_observe::metrics::gauges::ExecutorGauges;
use baton_observe::metrics::pool_now::PoolNow;
use baton_observe::metrics::snapshot::Snapshot;
use baton_observe::metrics::tally::Tally;
use baton_observe::metrics::{Metrics, Source};
use baton_observe::recorder::Recorder;
use baton_observe::trace::record::{ExitKind, Port, What};
use baton_observe::trace::{Names, Prepared, TraceFile, Tracing};
use baton_os::sys;
use vcpu_sched::{Counters, CpuId, CpuView, Doing, VcpuId, VcpuView};

use super::listener::Listener;
use super::pool::Pool;
use super::start::ExecutorError;

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
                    kind: kind_of(exit),
                },
            );
        }
        if let Some(gauges) = &self.gauges {
            gauges.exit(kind_of(exit));
        }
    }
}

/// The exit as observers name it.
fn kind_of(exit: &Exit) -> ExitKind {
    match exit {
        Exit::Handled => ExitKind::Device,
        Exit::Interrupted => ExitKind::Interrupted,
        Exit::Doorbell(_) => ExitKind::Doorbell,
        Exit::Debug => ExitKind::Debug,
        Exit::Halted => ExitKind::Halted,
        Exit::Ended => ExitKind::Ended,
    }
}

/// The watchers of a run.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    names: Names,
    /// A trace whose run has not begun.
    prepared: Option<Prepared>,
    tracing: Option<Tracing>,
    metrics: Option<Metrics>,
    control: Option<Offer>,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl Observed {
    /// Prepares a trace in `trace`, if one is wanted. Gives the policy's listener, and what each executor
    /// tells. Nothing is to be seen from outside before [`Observed::begin`].
    pub(crate) fn prepare(
        config: &RunConfig,
        names: Names,
        trace: Option<TraceFile>,
    ) -> (Self, Listener, Vec<Tells>) {
        let cpus = names.host_cpus.len();
        let mut listener = Listener {
            recorder: Recorder::new(config.timeline),
            ..Listener::default()
        };
        let mut tells: Vec<Tells> = (0..cpus).map(|_| Tells::default()).collect();
        let mut gauges = Vec::new();
        if config.metrics.is_some() {
            listener.tally = Some(Tally::new(cpus, names.vcpus.len()));
        }
        if config.metrics.is_some() || config.control != Control::Off {
            for tell in &mut tells {
                gauges.push(Arc::clone(tell.gauges.insert(Arc::default())));
            }
        }
        let mut prepared = None;
        if let Some(file) = trace {
            let (waiting, ports) = Prepared::new(file, &names);
            prepared = Some(waiting);
            listener.trace = Some(ports.policy);
            for (tell, port) in tells.iter_mut().zip(ports.executors) {
                tell.trace = Some(port);
            }
        }
        let observed = Self {
            names,
            prepared,
            tracing: None,
            metrics: None,
            control: None,
            gauges,
        };
        (observed, listener, tells)
    }

    /// The guests are about to run, and nothing else can keep them from it: offers what is wanted of `pool`,
    /// and begins the trace. What a run before has left is replaced here, and not by one that is refused.
    pub(crate) fn begin(
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
        let source = PoolLook {
            pool: Arc::downgrade(pool),
            names: self.names.clone(),
            gauges: self.gauges.clone(),
        };
        self.control = Offer::start(&config.control, source)?;
        // Last: it can fail no more once the file is empty.
        self.tracing = self.prepared.take().map(Prepared::begin).transpose()?;
        Ok(())
    }

    /// Ends both. The run itself is over and well; what went wrong with watching it is said on
    /// standard error. Nobody may tell anything any more.
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
        let mut pool_now = PoolNow::default();
        if let Some(pool) = self.pool.upgrade() {
            let state = pool.lock();
            let now = sys::monotonic_ns();
            pool_now = PoolNow {
                usable: usable(&pool, &self.names),
                ..PoolNow::of(&state.sched, count)
            };
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
            pool: pool_now,
        }
    }
}

fn usable(pool: &Pool, names: &Names) -> Vec<bool> {
    let cpus = names.host_cpus.iter();
    cpus.map(|&cpu| !pool.watch.is_away(cpu)).collect()
}

/// Copies what a pool looks like.
#[derive(Debug)]
struct PoolLook {
    pool: Weak<Pool>,
    names: Names,
    gauges: Vec<Arc<ExecutorGauges>>,
}

impl PoolLook {
    fn name(&self, id: VcpuId) -> Option<String> {
        let name = self.names.vcpus.get(id.index())?;
        Some(format!("{}/{}", name.guest_name, name.index))
    }

    fn cpu(&self, place: usize, view: Option<CpuView>, pool: &Pool) -> snapshot::Cpu {
        let counts = self.gauges.get(place).map(|gauges| gauges.read());
        let counts = counts.unwrap_or_default();
        snapshot::Cpu {
            cpu: self.names.host_cpus[place],
            away: pool.watch.is_away(self.names.host_cpus[place]),
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

impl Look for PoolLook {
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
            .map(|place| state.sched.view_cpu(CpuId(place as u32)))
            .collect();
        let vcpus: Vec<_> = (0..self.names.vcpus.len() as u32)
            .map(VcpuId)
            .filter_map(|id| {
                let counters = state.sched.counters_at(id, snapshot.now_ns);
                Some((id, state.sched.view(id)?, counters))
            })
            .collect();
        // Names are made without the lock.
        drop(state);
        snapshot.cpus = (0..)
            .zip(cpus)
            .map(|(place, view)| self.cpu(place, view, &pool))
            .collect();
        snapshot.vcpus = vcpus
            .into_iter()
            .map(|(id, view, counters)| self.vcpu(id, view, counters, snapshot.now_ns))
            .collect();
        snapshot
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.finish();
    }
}
