//! The executors of a pool while they run, and what they report at the end.

use std::sync::Arc;

use baton_os::sys;

use super::executor_threads::ExecutorThreads;
use super::host_cpu_watcher::HostCpuWatcher;
use super::observers::Observers;
use super::pool::Pool;
use super::pool_handle::PoolHandle;
use crate::report::RunnerReport;
use crate::runner::{NoPool, Runner};

/// The executors of a pool, and all that has to end with them.
pub(super) struct Executors {
    pub(super) pool: Arc<Pool>,
    pub(super) threads: Arc<ExecutorThreads>,
    /// Finds the host CPUs that cannot be used any more.
    pub(super) watcher: Option<HostCpuWatcher>,
    pub(super) observers: Observers,
    /// CPU time of the process when the executors were about to start, ns.
    began_at_cpu_ns: u64,
}

impl Executors {
    pub(super) fn new(pool: Arc<Pool>, observers: Observers) -> Self {
        let threads = ExecutorThreads::new(Arc::clone(&pool), observers.gauges());
        Self {
            pool,
            threads: Arc::new(threads),
            watcher: None,
            observers,
            began_at_cpu_ns: sys::process_cpu_ns(),
        }
    }
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
        let executors = self.threads.join_all();
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
