//! The threads of all vCPUs of a pool, where each vCPU has one (`vcpu_thread.rs`).

use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use baton_os::ready_thread::spawn_ready;
use vcpu_sched::VcpuId;

use super::halt_threads;
use super::handoff::Handoff;
use super::owned_vcpu::OwnedVcpu;
use super::pool::{HaltThreads, Pool};
use super::pool_guest::NewVcpu;
use super::vcpu_thread::{Inbox, VcpuThread, Work};
use crate::halt::{HaltThreadError, VcpuSleep};

/// The way to one vCPU's thread, which ends when this is dropped.
struct VcpuThreadHandle {
    work: Handoff<Work>,
    vcpu_sleep: Arc<VcpuSleep>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuThreadHandle {
    /// Starts the thread of `vcpu`. Also returns whether halts end a run there.
    fn start(vcpu: &NewVcpu, pool: &Arc<Pool>) -> Result<(Self, bool), HaltThreadError> {
        let work = Handoff::new();
        let inbox = Inbox(work.clone());
        let vcpu_sleep = Arc::new(VcpuSleep::new()?);
        let own_sleep = Arc::clone(&vcpu_sleep);
        // The pool keeps the way to the threads, so they must not keep the pool.
        let priority = pool.priority;
        let pool = Arc::downgrade(pool);
        let cpus = vcpu.host_cpus.clone();
        // Linux shows 15 characters.
        let name = format!("{}:{}", vcpu.index, vcpu.guest_name);
        let builder = thread::Builder::new().name(name.chars().take(15).collect());
        let init = move || {
            priority.run_vcpus()?;
            let thread = VcpuThread::for_this_thread(own_sleep, pool, cpus)?;
            let detects_halts = thread.detects_halts();
            Ok((thread, detects_halts))
        };
        let run = move |thread: VcpuThread| thread.serve(&inbox);
        let (thread, detects_halts) = spawn_ready(builder, init, run)?;
        let handle = Self {
            work,
            vcpu_sleep,
            thread: Some(thread),
        };
        Ok((handle, detects_halts))
    }
}

/// Brings what sleeps on the thread back to the pool, and ends the thread.
impl Drop for VcpuThreadHandle {
    fn drop(&mut self) {
        self.vcpu_sleep.close();
        self.work.close();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has reported that on standard error.
            let _ = thread.join();
        }
    }
}

/// The threads of all vCPUs of a pool, in the policy's order.
pub(crate) struct VcpuThreadSet {
    threads: Vec<VcpuThreadHandle>,
    detect_halts: bool,
}

impl fmt::Debug for VcpuThreadSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcpuThreadSet")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl VcpuThreadSet {
    /// Starts a thread for each of `vcpus`.
    ///
    /// # Errors
    /// If the host has no thread or timer left.
    pub(crate) fn start(pool: &Arc<Pool>, vcpus: &[NewVcpu]) -> Result<Self, HaltThreadError> {
        let mut threads = Vec::with_capacity(vcpus.len());
        let mut detect_halts = true;
        for vcpu in vcpus {
            let (thread, detects) = VcpuThreadHandle::start(vcpu, pool)?;
            threads.push(thread);
            detect_halts &= detects;
        }
        Ok(Self {
            threads,
            detect_halts,
        })
    }

    /// Whether halts end a run on all of them.
    pub(crate) fn detect_halts(&self) -> bool {
        self.detect_halts
    }

    /// The ways to give the threads work, in the policy's order.
    pub(super) fn inboxes(&self) -> Vec<Handoff<Work>> {
        self.threads
            .iter()
            .map(|thread| thread.work.clone())
            .collect()
    }

    /// The threads as those on which halted vCPUs sleep. `None` where KVM cannot end a halt without
    /// delivering the interrupt.
    pub(crate) fn halt_threads(&self, pool: &Arc<Pool>) -> Option<Arc<dyn HaltThreads>> {
        halt_threads::possible().then(|| {
            let way =
                |thread: &VcpuThreadHandle| (thread.work.clone(), Arc::clone(&thread.vcpu_sleep));
            Arc::new(OwnThreads {
                threads: self.threads.iter().map(way).collect(),
                pool: Arc::downgrade(pool),
            }) as Arc<dyn HaltThreads>
        })
    }
}

/// Each vCPU sleeps on its own thread. In the policy's order.
struct OwnThreads {
    threads: Vec<(Handoff<Work>, Arc<VcpuSleep>)>,
    pool: Weak<Pool>,
}

impl HaltThreads for OwnThreads {
    fn begin_sleep(&self, vcpu: OwnedVcpu) {
        let (work, _) = &self.threads[vcpu.id().index()];
        // Only a thread that has failed does not take it; the vCPU does not run again then.
        if let Err(Work::Sleep(vcpu)) = work.put(Work::Sleep(vcpu))
            && let Some(pool) = self.pool.upgrade()
        {
            pool.end_sleep(vcpu, 0);
        }
    }

    fn interrupt_sleep(&self, id: VcpuId) {
        self.threads[id.index()].1.interrupt();
    }
}
