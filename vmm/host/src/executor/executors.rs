//! The executors of a pool while they run, and what they report at the end.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use baton_config::ExecutorPriority;
use baton_os::ready_thread::spawn_ready;
use baton_os::sys;
use vcpu_sched::CpuId;

use super::host_cpu_watcher::HostCpuWatcher;
use super::main_loop::Executor;
use super::observers::Observers;
use super::pool::Pool;
use super::pool_handle::PoolHandle;
use super::pool_settings::PoolSettings;
use super::probes::ExecutorProbes;
use super::run_loop::RunLoop;
use super::threaded::Threaded;
use super::vcpu_runner::Inline;
use crate::halt::{ExitOnWake, HaltSetup};
use crate::report::{ExecutorReport, RunnerReport};
use crate::runner::{NoPool, Runner};

/// The executors of a pool, and all that has to end with them.
pub(super) struct Executors {
    pub(super) pool: Arc<Pool>,
    executors: Vec<JoinHandle<ExecutorReport>>,
    /// Finds the host CPUs that cannot be used any more.
    pub(super) watcher: Option<HostCpuWatcher>,
    pub(super) observers: Observers,
    /// CPU time of the process when the executors were about to start, ns.
    began_at_cpu_ns: u64,
}

impl Executors {
    pub(super) fn new(pool: Arc<Pool>, observers: Observers) -> Self {
        Self {
            pool,
            executors: Vec::new(),
            watcher: None,
            observers,
            began_at_cpu_ns: sys::process_cpu_ns(),
        }
    }

    /// Starts the executor of `cpu`, which is `host_cpu`. Returns whether halts end a run there.
    pub(super) fn spawn(
        &mut self,
        cpu: CpuId,
        host_cpu: usize,
        probes: ExecutorProbes,
    ) -> io::Result<bool> {
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
        let (executor, detects_halts) = spawn_ready(builder, init, run)?;
        self.executors.push(executor);
        Ok(detects_halts)
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

impl Runner for Executors {
    fn pool(&self) -> Result<PoolHandle, NoPool> {
        Ok(PoolHandle::new(&self.pool))
    }

    fn stop(mut self: Box<Self>) -> RunnerReport {
        drop(self.watcher.take());
        // A vCPU that waits from here on waits for the end of the run, which does not count.
        let end = sys::monotonic_ns();
        self.pool.stop();
        // An executor that panicked has reported that on standard error; its vCPU is lost.
        let executors: Vec<ExecutorReport> = self
            .executors
            .drain(..)
            .map(|executor| executor.join().unwrap_or_default())
            .collect();
        // The vCPUs that sleep come back.
        let threads = self.pool.lock().take_threads();
        drop(threads);
        let process_ns = sys::process_cpu_ns().saturating_sub(self.began_at_cpu_ns);
        // Before the lock is taken, because the last metrics need it.
        self.observers.finish();
        let (vcpus, moment) = self.pool.change(|state, _| {
            let vcpus = state.finish(end);
            (vcpus, state.sched.events_mut().recorder.finish())
        });
        RunnerReport {
            vcpus,
            process_ns,
            executors,
            moment,
        }
    }
}
