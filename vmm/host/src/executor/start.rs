//! From a configuration to executors that run guests.

use std::sync::Arc;

use baton_config::{ExecutorPriority, RunConfig, VcpuThreads};
use baton_observe::trace::{Names, TraceFile};
use baton_os::sys;
use vcpu_sched::{Config, CpuId, CpuSet, MAX_CPUS};

use super::error::ExecutorError;
use super::executor_priority;
use super::executors::Executors;
use super::guest_names::vcpu_names;
use super::halt_threads;
use super::host_cpu_watcher::HostCpuWatcher;
use super::join::{self, Prepared};
use super::join_error::RefusedJoin;
use super::kick_handler;
use super::late_halts;
use super::observers::{Observers, Served};
use super::pool::Pool;
use super::pool_cpus::PoolCpus;
use super::pool_reader::PoolReader;
use super::pool_settings::PoolSettings;
use super::probes::{ExecutorProbes, PolicyProbes, PoolPolicy};
use crate::halt::ThreadPriority;
use crate::ready_guest::ReadyGuest;
use crate::runner::Runner;

/// Starts an executor on each host CPU of `cpus` and runs `guests` there, with a trace in `trace`. None of them
/// runs if one cannot join the pool.
///
/// # Errors
/// If a reservation cannot be kept, or the host refuses a thread, a timer or a CPU.
pub fn start(
    config: &RunConfig,
    cpus: &[usize],
    guests: Vec<ReadyGuest>,
    trace: Option<TraceFile>,
) -> Result<Box<dyn Runner>, ExecutorError> {
    let settings = settings(config, ExecutorPriority::Off);
    let executors = start_executors(
        config,
        cpus,
        guests,
        trace,
        (Served::AsConfigured, settings, 0),
    )?;
    Ok(Box::new(executors))
}

/// Starts an executor on each host CPU of `cpus`, for guests that join later. The second of the three reads the state
/// of the pool while it runs, and the third changes its host CPUs; those in `others` can be added. vCPUs' threads of other processes have `vcpu_priority` while they have the command to run;
/// it is off, or that of executors in `config`, and needs host CPUs that are not the pool's, on which halted vCPUs sleep.
///
/// # Errors
/// As [`start`].
pub fn start_pool(
    config: &RunConfig,
    (cpus, others): (&[usize], &[usize]),
    vcpu_priority: ExecutorPriority,
) -> Result<(Box<dyn Runner>, PoolReader, PoolCpus), ExecutorError> {
    let settings = settings(config, vcpu_priority);
    let mut places = cpus.to_vec();
    places.extend(others.iter().filter(|cpu| !cpus.contains(cpu)));
    places.truncate(MAX_CPUS.max(cpus.len()));
    let spare = places.len() - cpus.len();
    let started = (Served::Always, settings, spare);
    let executors = start_executors(config, &places, Vec::new(), None, started)?;
    let reader = PoolReader::new(&executors.pool, executors.observers.gauges());
    let cpus = PoolCpus::new(&executors.pool, &executors.threads);
    Ok((Box::new(executors), reader, cpus))
}

/// Starts an executor on each host CPU of `cpus` but the last `spare`, for which there are places.
fn start_executors(
    config: &RunConfig,
    cpus: &[usize],
    guests: Vec<ReadyGuest>,
    trace: Option<TraceFile>,
    (served, settings, spare): (Served, PoolSettings, usize),
) -> Result<Executors, ExecutorError> {
    kick_handler::install()
        .map_err(|error| ExecutorError::host("the kick signal")(error.into()))?;
    late_halts::check(config.late_halts, &config.guests, config.quiet)?;
    executor_priority::check(config.executor_priority)?;
    let names = names_of(cpus, &guests);
    let (observers, policy_probes, probes) = Observers::prepare(config, served, &names, trace);
    let sched = policy(config, cpus.len(), spare, policy_probes)?;
    let pool = Pool::new(sched, cpus.into(), settings);
    let pool = Arc::new(pool.with_trace(observers.joined_names()));
    let guests = prepare(&pool, guests)?;
    pool.usable_cpus.set_spare(&cpus[cpus.len() - spare..]);
    let mut executors = Executors::new(pool, observers);
    let cpus = &cpus[..cpus.len() - spare];
    match begin(&mut executors, config, cpus, probes, guests) {
        Ok(()) => Ok(executors),
        Err(error) => {
            Box::new(executors).stop();
            Err(error)
        }
    }
}

/// A new policy for `cpus` host CPUs, without guests. The pool does not have the last `spare` of them yet.
///
/// # Errors
/// If there are too many host CPUs.
fn policy(
    config: &RunConfig,
    cpus: usize,
    spare: usize,
    probes: PolicyProbes,
) -> Result<PoolPolicy, ExecutorError> {
    if cpus > MAX_CPUS {
        return Err(ExecutorError::TooManyCpus(cpus));
    }
    let policy = Config {
        proxy: config.proxy,
        defer_ns: config.defer.map(|deferral| deferral.as_nanos() as u64),
        slice_ns: config.slice.as_nanos() as u64,
        spare: CpuSet::first(cpus).minus(CpuSet::first(cpus - spare)),
        ..Config::new(cpus)
    };
    let kind = config.sched.policy().unwrap_or_default();
    Ok(kind.pool(policy, probes))
}

fn settings(config: &RunConfig, foreign_priority: ExecutorPriority) -> PoolSettings {
    PoolSettings {
        priority: ThreadPriority(config.executor_priority),
        foreign_priority,
        can_sleep: halt_threads::possible(),
        own_threads: match config.vcpu_threads {
            VcpuThreads::On => true,
            VcpuThreads::Off => false,
            VcpuThreads::Auto => sys::kernel_version().is_some_and(|version| version < (6, 13)),
        },
        late_halts: config.late_halts,
    }
}

/// Has all of `guests` admitted, and then prepares them.
fn prepare(pool: &Arc<Pool>, guests: Vec<ReadyGuest>) -> Result<Vec<Prepared>, ExecutorError> {
    let admissions: Vec<_> = guests
        .into_iter()
        .map(|ready| join::admit(pool, ready))
        .collect::<Result<_, _>>()
        .map_err(cannot_join)?;
    let prepared = admissions
        .into_iter()
        .map(|admission| admission.prepare(pool));
    prepared.collect::<Result<_, _>>().map_err(cannot_join)
}

fn cannot_join(refused: Box<RefusedJoin>) -> ExecutorError {
    refused.error.into()
}

/// Starts the executors and what goes with them, and then the guests.
fn begin(
    executors: &mut Executors,
    config: &RunConfig,
    cpus: &[usize],
    probes: Vec<ExecutorProbes>,
    guests: Vec<Prepared>,
) -> Result<(), ExecutorError> {
    for ((number, &host_cpu), probes) in (0..).zip(cpus).zip(probes) {
        let mut threads = executors.threads.change();
        let detects_halts = threads
            .start_with(CpuId(number), host_cpu, probes)
            .map_err(ExecutorError::host("an executor"))?;
        late_halts::check_threads(config.late_halts, &config.guests, detects_halts)?;
    }
    let pool = Arc::clone(&executors.pool);
    executors.observers.begin(config, &pool)?;
    let watcher = HostCpuWatcher::start(&pool);
    let watcher = watcher.map_err(ExecutorError::host("the thread that watches the host CPUs"))?;
    executors.watcher = Some(watcher);
    // From here on nothing keeps the guests from running.
    for guest in guests {
        guest.begin(&pool).map_err(cannot_join)?;
    }
    Ok(())
}

/// The host CPUs and vCPUs in the order in which the policy numbers those with which a run starts.
fn names_of(cpus: &[usize], guests: &[ReadyGuest]) -> Names {
    let vcpus = guests
        .iter()
        .flat_map(|ready| vcpu_names(ready.guest.record(), ready.vcpus.len()));
    Names {
        host_cpus: cpus.to_vec(),
        vcpus: vcpus.collect(),
    }
}
