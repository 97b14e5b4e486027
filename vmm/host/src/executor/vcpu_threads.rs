//! The thread of a vCPU that runs and sleeps on its own thread (`vcpu_thread.rs`), as the pool sees it.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use baton_os::ready_thread::spawn_ready;

use super::halt_threads;
use super::handoff::Handoff;
use super::interrupt_sleep::InterruptSleep;
use super::local_vcpu::{LocalVcpu, RunRequest, VcpuThreads};
use super::new_vcpu::{NewVcpu, StartedThreads};
use super::pool::Pool;
use super::vcpu_thread::{Inbox, VcpuThread, Work};
use crate::halt::{HaltThreadError, VcpuSleep};

/// One vCPU's thread, which ends when this is dropped.
struct VcpuThreadHandle {
    work: Handoff<Work>,
    vcpu_sleep: Arc<VcpuSleep<LocalVcpu>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread of `vcpu`.
///
/// # Errors
/// If the host has no thread or timer left.
pub(super) fn start(
    pool: &Arc<Pool>,
    vcpu: &NewVcpu<'_>,
) -> Result<StartedThreads, HaltThreadError> {
    let work = Handoff::new();
    let inbox = Inbox(work.clone());
    let vcpu_sleep = Arc::new(VcpuSleep::new()?);
    let own_sleep = Arc::clone(&vcpu_sleep);
    // The pool keeps the way to the threads, so they must not keep the pool.
    let priority = pool.priority;
    let pool = Arc::downgrade(pool);
    let own_pool = Weak::clone(&pool);
    let cpus = Arc::clone(vcpu.host_cpus);
    let builder = thread::Builder::new().name(vcpu.thread_name(""));
    let init = move || {
        priority.run_vcpus()?;
        let thread = VcpuThread::for_this_thread(own_sleep, own_pool, cpus)?;
        let detects_halts = thread.detects_halts();
        Ok((thread, detects_halts))
    };
    let run = move |thread: VcpuThread| thread.serve(&inbox);
    let (thread, detect_halts) = spawn_ready(builder, init, run)?;
    Ok(StartedThreads {
        ways: Arc::new(OwnThread {
            work: work.clone(),
            vcpu_sleep: Arc::clone(&vcpu_sleep),
            pool,
        }),
        owner: Box::new(VcpuThreadHandle {
            work,
            vcpu_sleep,
            thread: Some(thread),
        }),
        detect_halts,
    })
}

/// Brings what sleeps on the thread back to the pool, and ends the thread.
impl Drop for VcpuThreadHandle {
    fn drop(&mut self) {
        self.vcpu_sleep.close();
        self.work.close();
        if let Some(thread) = self.thread.take()
            // This may run on the thread itself, if that held the last reference to the pool.
            && thread.thread().id() != thread::current().id()
        {
            // A thread that panicked has reported that on standard error.
            let _ = thread.join();
        }
    }
}

/// The way to a vCPU's thread.
struct OwnThread {
    work: Handoff<Work>,
    vcpu_sleep: Arc<VcpuSleep<LocalVcpu>>,
    pool: Weak<Pool>,
}

impl VcpuThreads for OwnThread {
    fn run(&self, request: RunRequest) -> bool {
        self.work.put(Work::Run(request)).is_ok()
    }

    fn begin_sleep(&self, vcpu: LocalVcpu) {
        // Only a thread that has failed or ends does not take it.
        if let Err(Work::Sleep(vcpu)) = self.work.put(Work::Sleep(vcpu)) {
            halt_threads::keep(&self.pool, vcpu);
        }
    }
}

impl InterruptSleep for OwnThread {
    fn interrupt_sleep(&self) {
        self.vcpu_sleep.interrupt();
    }
}
