//! From a configuration to executors that run guests.

use std::sync::Arc;

use baton_config::{RunConfig, VcpuThreads};
use baton_machine::{Guest, Vcpu};
use baton_observe::trace::{Names, TraceFile, VcpuName};
use baton_os::sys;
use vcpu_sched::{CpuId, GuestId, VcpuId, WorkerId};

use super::admission::admit;
use super::error::ExecutorError;
use super::executor_priority;
use super::executors::Executors;
use super::halt_threads;
use super::host_cpu_watcher::HostCpuWatcher;
use super::kick_handler;
use super::late_halts;
use super::observers::Observers;
use super::pool::Pool;
use super::pool_guest::{NewGuest, NewVcpu};
use super::probes::{ExecutorProbes, PoolPolicy};
use super::vcpu_threads::VcpuThreadSet;
use super::workers::DeviceWorker;
use crate::halt::ThreadPriority;
use crate::runner::{ReadyGuest, Runner};

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
    kick_handler::install()
        .map_err(|error| ExecutorError::host("the kick signal")(error.into()))?;
    late_halts::check(config)?;
    executor_priority::check(config.executor_priority)?;
    let names = names_of(cpus, &guests);
    let (observers, policy_probes, probes) = Observers::prepare(config, names.clone(), trace);
    let (sched, firsts) = admit(config, cpus, &guests, policy_probes)?;

    let vcpus_of_guests = guests.iter().map(|ready| ready.vcpus.len()).collect();
    let PooledGuests {
        pool,
        guests,
        vcpus,
    } = PooledGuests::new(
        sched,
        cpus,
        ThreadPriority(config.executor_priority),
        guests,
        &firsts,
    );
    let threads = start_threads(config, &pool, &vcpus)?;
    let can_sleep = set_halt_threads(&pool, threads.as_ref(), &vcpus)?;
    let mut executors = Executors::new(pool, threads, can_sleep, vcpus_of_guests, observers);
    match begin(&mut executors, config, cpus, names, probes, guests) {
        Ok(()) => {
            executors.begin(&firsts);
            Ok(Box::new(executors))
        }
        Err(error) => {
            Box::new(executors).stop();
            Err(error)
        }
    }
}

/// Starts the executors and what goes with them. When it has succeeded, only the guests have to begin.
fn begin(
    executors: &mut Executors,
    config: &RunConfig,
    cpus: &[usize],
    names: Names,
    probes: Vec<ExecutorProbes>,
    guests: Vec<Arc<Guest>>,
) -> Result<(), ExecutorError> {
    for ((number, &host_cpu), probes) in (0..).zip(cpus).zip(probes) {
        let detects_halts = executors
            .spawn(CpuId(number), host_cpu, probes)
            .map_err(ExecutorError::host("an executor"))?;
        late_halts::check_threads(config, detects_halts)?;
    }
    let pool = Arc::clone(&executors.pool);
    executors.observers.begin(config, &pool)?;
    for guest in guests {
        let pool = Arc::downgrade(&pool);
        guest.on_end(move |guest, _| {
            if let Some(pool) = pool.upgrade() {
                pool.remove_guest(guest);
            }
        });
    }
    let watcher = HostCpuWatcher::start(&pool, names);
    let watcher = watcher.map_err(ExecutorError::host("the thread that watches the host CPUs"))?;
    executors.watcher = Some(watcher);
    Ok(())
}

/// Guests that have joined a pool.
struct PooledGuests {
    pool: Arc<Pool>,
    guests: Vec<Arc<Guest>>,
    /// All vCPUs, in the policy's order.
    vcpus: Vec<NewVcpu>,
}

impl PooledGuests {
    /// Puts `guests`, whose first vCPUs the policy calls `firsts`, into a pool of the host CPUs `cpus`.
    fn new(
        mut sched: PoolPolicy,
        cpus: &[usize],
        priority: ThreadPriority,
        guests: Vec<ReadyGuest>,
        firsts: &[VcpuId],
    ) -> Self {
        let mut new_guests = Vec::new();
        let mut new_vcpus = Vec::new();
        let mut vcpus = Vec::new();
        for ((ready, &first), guest) in guests.into_iter().zip(firsts).zip((0..).map(GuestId)) {
            let workers = (0..ready.guest.devices().count()).map(|_| sched.add_worker(guest));
            new_vcpus.extend(new_vcpus_of(&ready, cpus));
            new_guests.push(NewGuest {
                workers: workers.collect(),
                guest: ready.guest,
                first,
            });
            vcpus.extend(ready.vcpus);
        }
        let with_workers: Vec<(Arc<Guest>, Vec<WorkerId>)> = new_guests
            .iter()
            .map(|new| (Arc::clone(&new.guest), new.workers.clone()))
            .collect();
        let host_cpus: Arc<[usize]> = cpus.into();
        let vcpus = vcpus.into_iter();
        let pool = Pool::new(sched, new_guests, vcpus, Arc::clone(&host_cpus), priority);
        let pool = Arc::new(pool);
        for (guest, workers) in &with_workers {
            for (&worker, device) in workers.iter().zip(0..) {
                let worker = DeviceWorker::new(worker, &pool, Arc::clone(&host_cpus));
                guest.devices().require_cpu_grants(device, Arc::new(worker));
            }
        }
        Self {
            pool,
            guests: with_workers.into_iter().map(|(guest, _)| guest).collect(),
            vcpus: new_vcpus,
        }
    }
}

fn new_vcpus_of(ready: &ReadyGuest, cpus: &[usize]) -> Vec<NewVcpu> {
    let vcpus = ready.vcpus.iter().zip(&ready.config.host_cpus);
    let new = vcpus.map(|(vcpu, own)| {
        let own = own.as_deref().unwrap_or(cpus).iter();
        NewVcpu {
            guest_name: vcpu.guest.name.clone(),
            index: vcpu.index,
            host_cpus: own.copied().filter(|cpu| cpus.contains(cpu)).collect(),
        }
    });
    new.collect()
}

/// Starts a thread for each vCPU, if that is configured, or needed on this kernel.
fn start_threads(
    config: &RunConfig,
    pool: &Arc<Pool>,
    vcpus: &[NewVcpu],
) -> Result<Option<VcpuThreadSet>, ExecutorError> {
    let with_threads = match config.vcpu_threads {
        VcpuThreads::On => true,
        VcpuThreads::Off => false,
        VcpuThreads::Auto => sys::kernel_version().is_some_and(|version| version < (6, 13)),
    };
    if !with_threads {
        return Ok(None);
    }
    let threads = VcpuThreadSet::start(pool, vcpus)?;
    late_halts::check_threads(config, threads.detect_halts())?;
    Ok(Some(threads))
}

/// Gives halted vCPUs threads to sleep on: their own `threads`, or some for that purpose. Returns whether
/// there are any.
fn set_halt_threads(
    pool: &Arc<Pool>,
    threads: Option<&VcpuThreadSet>,
    vcpus: &[NewVcpu],
) -> Result<bool, ExecutorError> {
    let halt_threads = match threads {
        Some(threads) => threads.halt_threads(pool),
        None => halt_threads::start(pool, vcpus)?,
    };
    let can_sleep = halt_threads.is_some();
    pool.set_halt_threads(halt_threads);
    Ok(can_sleep)
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
