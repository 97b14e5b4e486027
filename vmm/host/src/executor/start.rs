//! From a configuration to running executors, and back to numbers.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use baton_config::{GuestConfig, RunConfig, VcpuThreads as ThreadsOption};
use baton_machine::{ExitCounts, Vcpu};
use baton_observe::control::ControlError;
use baton_observe::metrics::MetricsError;
use baton_observe::trace::{Names, TraceError, TraceFile, VcpuName};
use baton_os::sys;
use thiserror::Error;
use vcpu_sched::{
    AdmissionError, Config, Counters, CpuId, CpuSet, GuestId, MAX_CPUS, SchedParams, Scheduler,
    VcpuId,
};

use super::berths;
use super::helpers::Helper;
use super::host_cpus::Watcher;
use super::lane::Lane;
use super::late_halts::{self, LateHaltsError};
use super::listener::Listener;
use super::observed::{Observed, Tells};
use super::pool::{NewMember, NewVcpu, Pool};
use super::seam::{Direct, Seam};
use super::signal;
use super::turns::{Executor, ExecutorReport};
use super::vcpu_thread::{ByThread, VcpuThreads};
use crate::halt::{Bedding, BerthError, ExitOnWake};
use crate::runner::{ReadyGuest, Runner, RunnerReport, VcpuAccount};

/// Our own scheduler could not start.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// More host CPUs than a pool takes.
    #[error("{0} host CPUs are more than the {MAX_CPUS} of one pool: name fewer with --host-cpus")]
    TooManyCpus(usize),
    /// A reservation that cannot be guaranteed beside the others.
    #[error("guest {guest}, vCPU {vcpu}: {source}")]
    Admission {
        /// The guest's name.
        guest: String,
        /// Index of the vCPU.
        vcpu: usize,
        /// What would fit.
        source: AdmissionError,
    },
    /// Reservations where halts are noticed late.
    #[error(transparent)]
    LateHalts(#[from] LateHaltsError),
    /// No berths for halted vCPUs.
    #[error(transparent)]
    Berth(#[from] BerthError),
    /// No trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// No metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A resource of the host.
    #[error("cannot set up {what}: {source}")]
    Host {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Executors at work.
struct Executors {
    pool: Arc<Pool>,
    /// Keeps the vCPUs' threads, if there are any, until the executors are done.
    threads: Option<VcpuThreads>,
    /// Whether halted vCPUs have a place to sleep.
    berths: bool,
    executors: Vec<JoinHandle<ExecutorReport>>,
    /// Looks whether the host CPUs can still be used.
    watcher: Option<Watcher>,
    /// Number of vCPUs of each guest.
    shape: Vec<usize>,
    observed: Observed,
    /// CPU time of the process when the executors were about to start, ns.
    began_at_cpu_ns: u64,
}

/// Starts an executor on each host CPU of `cpus` and runs `guests` there, with a trace in `trace`.
///
/// # Errors
/// If a reservation cannot be kept, or the host refuses a thread, a timer or a CPU.
pub fn start(
    config: &RunConfig,
    cpus: &[usize],
    guests: Vec<ReadyGuest>,
    trace: Option<TraceFile>,
) -> Result<Box<dyn Runner>, ExecutorError> {
    let host = |what| move |source| ExecutorError::Host { what, source };
    signal::install().map_err(|e| host("the kick signal")(e.into()))?;
    late_halts::check(config)?;
    let names = names_of(cpus, &guests);
    let (observed, listener, tells) = Observed::prepare(config, names.clone(), trace);
    let (mut sched, firsts) = admit(config, cpus, &guests, listener)?;

    let shape: Vec<usize> = guests.iter().map(|ready| ready.vcpus.len()).collect();
    let mut members = Vec::new();
    let mut vcpus = Vec::new();
    let mut new = Vec::new();
    for ((ready, first), guest) in guests.into_iter().zip(firsts).zip((0..).map(GuestId)) {
        let helpers = (0..ready.guest.devices().count()).map(|_| sched.add_worker(guest));
        members.push(NewMember {
            helpers: helpers.collect(),
            guest: ready.guest,
            first,
        });
        for (vcpu, own) in ready.vcpus.iter().zip(&ready.config.host_cpus) {
            let own = own.as_deref().unwrap_or(cpus).iter();
            new.push(NewVcpu {
                guest: vcpu.guest.number,
                guest_name: vcpu.guest.name.clone(),
                index: vcpu.index,
                host_cpus: own.copied().filter(|cpu| cpus.contains(cpu)).collect(),
            });
        }
        vcpus.extend(ready.vcpus);
    }
    let starters: Vec<VcpuId> = members.iter().map(|member| VcpuId(member.first)).collect();
    let handles: Vec<_> = members
        .iter()
        .map(|member| (Arc::clone(&member.guest), member.helpers.clone()))
        .collect();
    let host_cpus: Arc<[usize]> = cpus.into();
    let vcpus = vcpus.into_iter();
    let pool = Arc::new(Pool::new(sched, members, vcpus, Arc::clone(&host_cpus)));
    for (guest, helpers) in &handles {
        for (&helper, slot) in helpers.iter().zip(0..) {
            let seat = Arc::clone(pool.seat(helper));
            let cpus = Arc::clone(&host_cpus);
            let helper = Helper::new(helper, seat, &pool, cpus);
            guest.devices().require_cpu_grants(slot, Arc::new(helper));
        }
    }
    let mut threads = None;
    let berths = if wants_threads(config.vcpu_threads) {
        let threads = threads.insert(VcpuThreads::start(&pool, &new)?);
        late_halts::check_threads(config, threads.see_halts())?;
        threads.berths(&pool)
    } else {
        berths::start(&pool, &new)?
    };
    let have_berths = berths.is_some();
    pool.set_berths(berths);
    let mut all = Executors {
        pool: Arc::clone(&pool),
        threads,
        berths: have_berths,
        executors: Vec::new(),
        watcher: None,
        shape,
        observed,
        began_at_cpu_ns: sys::process_cpu_ns(),
    };
    for ((number, &host_cpu), tells) in cpus.iter().enumerate().zip(tells) {
        let cpu = CpuId(number as u32);
        let started = all.spawn(cpu, host_cpu, tells);
        let started = started.map_err(host("an executor"));
        if let Err(error) = started.and_then(|seen| Ok(late_halts::check_threads(config, seen)?)) {
            Box::new(all).stop();
            return Err(error);
        }
    }
    if let Err(error) = all.observed.begin(config, &pool) {
        Box::new(all).stop();
        return Err(error);
    }

    for (guest, _) in handles {
        let pool = Arc::downgrade(&pool);
        guest.on_end(move |guest, _| {
            if let Some(pool) = pool.upgrade() {
                pool.retire(guest);
            }
        });
    }
    match Watcher::start(&pool, names) {
        Ok(watcher) => all.watcher = Some(watcher),
        Err(error) => {
            Box::new(all).stop();
            return Err(host("the thread that watches the host CPUs")(error));
        }
    }
    pool.begin(&starters, all.berths);
    Ok(Box::new(all))
}

/// Whether the second form of the seam is wanted, or needed on this kernel.
fn wants_threads(option: ThreadsOption) -> bool {
    match option {
        ThreadsOption::On => true,
        ThreadsOption::Off => false,
        ThreadsOption::Auto => sys::kernel_version().is_some_and(|version| version < (6, 13)),
    }
}

/// Asks the policy to take all vCPUs. Gives each guest's first name in it.
fn admit(
    config: &RunConfig,
    cpus: &[usize],
    guests: &[ReadyGuest],
    listener: Listener,
) -> Result<(Scheduler<Listener>, Vec<u32>), ExecutorError> {
    if cpus.len() > MAX_CPUS {
        return Err(ExecutorError::TooManyCpus(cpus.len()));
    }
    let policy = Config {
        proxy: config.proxy,
        defer_ns: config.defer.map(|grace| grace.as_nanos() as u64),
        slice_ns: config.slice.as_nanos() as u64,
        ..Config::new(cpus.len())
    };
    let mut sched = Scheduler::with_events(policy, listener);
    let mut firsts = Vec::new();
    let mut next = 0;
    for ready in guests {
        firsts.push(next);
        let guest = sched.add_guest();
        for vcpu in 0..ready.config.cpus {
            let name = || ready.config.name.clone();
            let claim = claim(&ready.config, vcpu);
            let allowed = ready.config.host_cpus[vcpu]
                .as_deref()
                .map(|own| in_pool(own, cpus));
            let added = sched.add_vcpu(guest, claim, allowed).map_err(|source| {
                ExecutorError::Admission {
                    guest: name(),
                    vcpu,
                    source,
                }
            })?;
            next = added.0 + 1;
        }
    }
    Ok((sched, firsts))
}

/// The host CPUs and vCPUs in the order in which the policy will number them.
fn names_of(cpus: &[usize], guests: &[ReadyGuest]) -> Names {
    let name = |vcpu: &Vcpu| VcpuName {
        guest: vcpu.guest.number,
        guest_name: vcpu.guest.name.clone(),
        index: vcpu.index,
    };
    let vcpus = guests
        .iter()
        .flat_map(|ready| &ready.vcpus)
        .map(|vcpu| name(vcpu));
    Names {
        host_cpus: cpus.to_vec(),
        vcpus: vcpus.collect(),
    }
}

fn claim(config: &GuestConfig, vcpu: usize) -> SchedParams {
    match config.reservations[vcpu] {
        Some(reservation) => SchedParams::Reserved(reservation),
        None => SchedParams::BestEffort {
            weight: config.weight,
        },
    }
}

/// Host CPU numbers as places in the pool.
fn in_pool(own: &[usize], cpus: &[usize]) -> CpuSet {
    (0..)
        .zip(cpus)
        .filter(|(_, cpu)| own.contains(cpu))
        .map(|(at, _)| CpuId(at))
        .collect()
}

impl Executors {
    /// Whether halts end a run there.
    fn spawn(&mut self, cpu: CpuId, host_cpu: usize, tells: Tells) -> io::Result<bool> {
        let (ready, started) = sync_channel(1);
        let pool = Arc::clone(&self.pool);
        let berths = self.berths;
        let by_thread = self
            .threads
            .as_ref()
            .map(|threads| ByThread::new(threads, cpu, host_cpu));
        let executor = thread::Builder::new()
            .name(format!("executor/{host_cpu}"))
            .spawn(move || {
                let equipped = sys::set_affinity(&[host_cpu]).and_then(|()| {
                    let bedding = berths
                        .then(|| Bedding::of_this_thread(ExitOnWake::Events))
                        .transpose()?;
                    Ok(Direct {
                        lane: Lane::for_this_thread()?,
                        bedding,
                    })
                });
                sys::set_exact_timers();
                let direct = match equipped {
                    Ok(direct) => direct,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return ExecutorReport::default();
                    }
                };
                let _ = ready.send(Ok(direct.lane.sees_halts()));
                match by_thread {
                    Some(by_thread) => run(pool, cpu, by_thread, berths, tells),
                    None => run(pool, cpu, direct, berths, tells),
                }
            })?;
        self.executors.push(executor);
        started
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread did not start")))
    }
}

fn run<S: Seam>(
    pool: Arc<Pool>,
    cpu: CpuId,
    seam: S,
    berths: bool,
    tells: Tells,
) -> ExecutorReport {
    Executor::new(pool, cpu, seam, berths, tells).run()
}

impl Runner for Executors {
    fn stop(mut self: Box<Self>) -> RunnerReport {
        drop(self.watcher.take());
        // What waits from here on waits for the end.
        let end = sys::monotonic_ns();
        self.pool.stop();
        // One that panicked has said so on standard error; its vCPU is lost.
        let executors: Vec<ExecutorReport> = self
            .executors
            .drain(..)
            .map(|executor| executor.join().unwrap_or_default())
            .collect();
        // Berths give back what sleeps in them.
        self.pool.set_berths(None);
        drop(self.threads.take());
        let process_ns = sys::process_cpu_ns().saturating_sub(self.began_at_cpu_ns);
        // Before the lock is taken: the last metrics need it.
        self.observed.finish();
        let mut state = self.pool.lock();
        let mut vcpus = state.take_counters().into_iter();
        let numbers =
            |(id, exits): (VcpuId, ExitCounts)| summarize(state.sched.counters_at(id, end), exits);
        let vcpus = self
            .shape
            .iter()
            .map(|&count| vcpus.by_ref().take(count).map(numbers).collect())
            .collect();
        RunnerReport {
            vcpus,
            process_ns,
            executors,
            moment: state.sched.events.recorder.finish(),
        }
    }
}

fn summarize(c: Counters, exits: ExitCounts) -> VcpuAccount {
    VcpuAccount {
        ran_ns: c.runtime_ns,
        charged_ns: c.charged_ns,
        elsewhere_ns: c.elsewhere_ns,
        sleep_ns: c.sleep_ns,
        devices_ns: c.devices_ns,
        disturbing_ns: c.disturbing_ns,
        donated_ns: c.donated_ns,
        received_ns: c.received_ns,
        waited_ns: c.waited_ns,
        throttled_wait_ns: c.throttled_wait_ns,
        host_steal_ns: c.host_steal_ns,
        preemptions: c.preemptions,
        holder_preemptions: c.holder_preemptions,
        proxied: c.proxied,
        proxied_ns: c.received_ns,
        longest_chain: u64::from(c.longest_chain),
        cycles: c.cycles,
        long_chains: c.long_chains,
        deferrals: c.deferrals,
        deferred_ns: c.deferral_debt_ns,
        deadline_misses: c.deadline_misses,
        throttled_ns: c.throttled_ns,
        reduced_ns: c.reduced_ns,
        switches: c.switches,
        migrations: c.migrations,
        exits,
    }
}
