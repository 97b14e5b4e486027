//! The threads of the executors, one for each host CPU that the pool has at the moment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use baton_config::ExecutorPriority;
use baton_observe::metrics::ExecutorGauges;
use baton_os::ready_thread::spawn_ready;
use baton_os::sys;
use vcpu_sched::CpuId;

use super::main_loop::Executor;
use super::pool::Pool;
use super::pool_settings::PoolSettings;
use super::probes::ExecutorProbes;
use super::run_loop::RunLoop;
use super::threaded::Threaded;
use super::vcpu_runner::Inline;
use crate::halt::{ExitOnWake, HaltSetup};
use crate::report::ExecutorReport;
use crate::sync::{Mutex, MutexGuard};

/// The executors of a pool.
pub(super) struct ExecutorThreads {
    pool: Arc<Pool>,
    /// The counters of each executor, in the policy's order, if anybody reads them.
    gauges: Vec<Arc<ExecutorGauges>>,
    /// Those that run. Held while one starts or ends.
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    threads: BTreeMap<CpuId, JoinHandle<ExecutorReport>>,
    /// The reports of those that have ended while the pool runs.
    ended: Vec<ExecutorReport>,
}

/// The executors, while one starts or ends. There is one of it at a time.
pub(super) struct ExecutorChange<'a> {
    of: &'a ExecutorThreads,
    running: MutexGuard<'a, Running>,
}

impl ExecutorThreads {
    /// None yet.
    pub(super) fn new(pool: Arc<Pool>, gauges: Vec<Arc<ExecutorGauges>>) -> Self {
        Self {
            pool,
            gauges,
            running: Mutex::default(),
        }
    }

    /// The only way to start or end executors, for one caller at a time.
    pub(super) fn change(&self) -> ExecutorChange<'_> {
        ExecutorChange {
            of: self,
            running: self.running.lock(),
        }
    }

    /// Waits for the executors, which the pool has made end. Returns the reports of all, in the policy's order, and then
    /// of those that have ended before.
    pub(super) fn join_all(&self) -> Vec<ExecutorReport> {
        let Running { threads, ended } = std::mem::take(&mut *self.running.lock());
        // An executor that panicked has reported that on standard error; its vCPU is lost.
        let running = threads.into_values();
        let reports = running.map(|thread| thread.join().unwrap_or_default());
        reports.chain(ended).collect()
    }

    fn spawn(
        &self,
        cpu: CpuId,
        host_cpu: usize,
        probes: ExecutorProbes,
    ) -> io::Result<(JoinHandle<ExecutorReport>, bool)> {
        let pool = Arc::clone(&self.pool);
        let PoolSettings {
            priority,
            foreign_priority,
            can_sleep,
            own_threads,
            ..
        } = pool.settings;
        let builder = thread::Builder::new().name(format!("executor/{host_cpu}"));
        let init = move || {
            sys::set_affinity(&[host_cpu])?;
            match foreign_priority {
                ExecutorPriority::Off => priority.run_vcpus()?,
                ExecutorPriority::Fifo(_) => priority.command_vcpus()?,
            }
            let inline = inline_runner(can_sleep)?;
            sys::set_exact_timers();
            let detects_halts = inline.run_loop.detects_halts();
            Ok((inline, detects_halts))
        };
        let run = move |inline: Inline| match own_threads {
            true => {
                let detect_halts = Arc::clone(&pool.own_threads_detect_halts);
                let threaded = Threaded::new(cpu, host_cpu, detect_halts);
                Executor::run(&pool, cpu, threaded, can_sleep, probes)
            }
            false => Executor::run(&pool, cpu, inline, can_sleep, probes),
        };
        Ok(spawn_ready(builder, init, run)?)
    }
}

impl ExecutorChange<'_> {
    /// Starts the executor of `cpu`, which is `host_cpu`, with these probes. Returns whether halts end a run there.
    pub(super) fn start_with(
        &mut self,
        cpu: CpuId,
        host_cpu: usize,
        probes: ExecutorProbes,
    ) -> io::Result<bool> {
        let (thread, detects_halts) = self.of.spawn(cpu, host_cpu, probes)?;
        self.running.threads.insert(cpu, thread);
        Ok(detects_halts)
    }

    /// The same while the pool runs. A pool that changes its host CPUs has no trace.
    pub(super) fn start(&mut self, cpu: CpuId, host_cpu: usize) -> io::Result<bool> {
        let probes = ExecutorProbes {
            trace: None,
            gauges: self.of.gauges.get(cpu.index()).cloned(),
        };
        self.start_with(cpu, host_cpu, probes)
    }

    /// Ends the executor of `cpu`, which the policy gives nothing any more, and waits until it has given back what it
    /// runs.
    pub(super) fn end(&mut self, pool: &Pool, cpu: CpuId) {
        let Some(thread) = self.running.threads.remove(&cpu) else {
            return;
        };
        let target = pool.kick_target(cpu);
        target.end_executor();
        // One that panicked has reported that on standard error; its vCPU is lost.
        self.running.ended.push(thread.join().unwrap_or_default());
        target.clear_executor();
    }
}

/// What the calling thread needs to run vCPUs by itself.
fn inline_runner(can_sleep: bool) -> io::Result<Inline> {
    let halt_setup = can_sleep
        .then(|| HaltSetup::for_this_thread(ExitOnWake::Events))
        .transpose()?;
    Ok(Inline {
        run_loop: RunLoop::for_this_thread()?,
        halt_setup,
    })
}
