//! The second form of the seam: each vCPU has a thread, which an executor wakes and waits for.
//!
//! The vCPU still is a value that one thread owns: it goes to its thread with the request and comes
//! back with the answer. Its thread is pinned to the host CPU of the executor that asks, so the two
//! never run at the same time and the policy's choice of CPU holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use super::lane::Lane;
use super::pool::Pool;
use super::seam::{Ran, Seam};
use super::station::Station;
use crate::machine::Vcpu;
use crate::sys;
use vcpu_sched::CpuId;

/// A vCPU to run, and for whom.
struct Request {
    vcpu: Box<Vcpu>,
    until: Option<u64>,
    cpu: CpuId,
    host_cpu: usize,
    answer: SyncSender<Ran>,
}

/// The thread of one vCPU.
struct VcpuThread {
    requests: SyncSender<Request>,
    thread: Option<JoinHandle<()>>,
}

/// The threads of all vCPUs of a pool, by guest number and index.
pub(crate) struct VcpuThreads {
    threads: HashMap<(usize, u32), VcpuThread>,
    sees_halts: bool,
}

impl fmt::Debug for VcpuThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcpuThreads")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl VcpuThreads {
    /// Starts a thread for each of `vcpus` (guest number, guest name, index).
    ///
    /// # Errors
    /// If the host has no thread or timer left.
    pub(crate) fn start(
        pool: &Arc<Pool>,
        vcpus: impl Iterator<Item = (usize, String, u32)>,
    ) -> io::Result<Self> {
        let mut threads = HashMap::new();
        let mut sees_halts = true;
        for (number, name, index) in vcpus {
            let (requests, inbox) = sync_channel(1);
            let (ready, started) = sync_channel(1);
            let pool = Arc::clone(pool);
            // Linux shows 15 characters.
            let name: String = format!("{index}:{name}").chars().take(15).collect();
            let thread =
                thread::Builder::new()
                    .name(name)
                    .spawn(move || match Lane::for_this_thread() {
                        Ok(lane) => {
                            let _ = ready.send(Ok(lane.sees_halts()));
                            serve(lane, &inbox, &pool);
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    })?;
            sees_halts &= started
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("a vCPU's thread did not start")))?;
            threads.insert(
                (number, index),
                VcpuThread {
                    requests,
                    thread: Some(thread),
                },
            );
        }
        Ok(Self {
            threads,
            sees_halts,
        })
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        for (_, VcpuThread { requests, thread }) in self.threads.drain() {
            // Without senders the thread's loop ends.
            drop(requests);
            if let Some(thread) = thread {
                // A thread that panicked has said so on standard error.
                let _ = thread.join();
            }
        }
    }
}

fn serve(mut lane: Lane, inbox: &Receiver<Request>, pool: &Pool) {
    sys::set_exact_timers();
    let mut pinned = None;
    while let Ok(Request {
        mut vcpu,
        until,
        cpu,
        host_cpu,
        answer,
    }) = inbox.recv()
    {
        let from = sys::thread_cpu_ns();
        if pinned != Some(host_cpu) {
            // The executor is pinned there, so the kernel has granted it before.
            pinned = sys::set_affinity(&[host_cpu]).is_ok().then_some(host_cpu);
        }
        super::signal::forget_missed();
        let exit = lane.run(&mut vcpu, until, pool.station(cpu));
        let elsewhere_ns = sys::thread_cpu_ns().saturating_sub(from);
        // Without a receiver the executor is gone, and the run with it.
        let _ = answer.send(Ran {
            vcpu,
            exit,
            elsewhere_ns,
        });
    }
}

/// An executor's way to the vCPUs' threads.
pub(crate) struct ByThread {
    threads: HashMap<(usize, u32), SyncSender<Request>>,
    cpu: CpuId,
    host_cpu: usize,
    answers: (SyncSender<Ran>, Receiver<Ran>),
    sees_halts: bool,
}

impl ByThread {
    pub(crate) fn new(threads: &VcpuThreads, cpu: CpuId, host_cpu: usize) -> Self {
        let all = threads
            .threads
            .iter()
            .map(|(&id, thread)| (id, thread.requests.clone()));
        Self {
            threads: all.collect(),
            cpu,
            host_cpu,
            answers: sync_channel(1),
            sees_halts: threads.sees_halts,
        }
    }
}

impl Seam for ByThread {
    fn run(&mut self, vcpu: Box<Vcpu>, until: Option<u64>, _: &Station) -> Option<Ran> {
        let thread = self.threads.get(&(vcpu.guest.number, vcpu.index))?;
        let answer = self.answers.0.clone();
        let request = Request {
            vcpu,
            until,
            cpu: self.cpu,
            host_cpu: self.host_cpu,
            answer,
        };
        thread.send(request).ok()?;
        self.answers.1.recv().ok()
    }

    fn sees_halts(&self) -> bool {
        self.sees_halts
    }
}
