//! The vCPUs' threads of a guest, and how they are made to obey a pool or to run alone.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_link::thread_side::ThreadSide;
use baton_link::wake_file::WakeReport;
use baton_machine::{ImmediateExit, Vcpu};
use baton_os::ready_thread::spawn_ready;
use baton_os::signals::{self, RtSignal};
use baton_os::sys;

use super::idle_cpus::{CpusWithPriority, IdleCpus};
use super::phase::{Phase, PhaseSlot, PoolLost, Seat};
use super::vcpu_thread::VcpuThread;
use crate::executor::kick_handler;
use crate::host_sched::vcpu_control::VcpuControl;
use crate::ready_guest::ReadyGuest;
use crate::report::VcpuAccount;
use crate::sync::{Condvar, Mutex};

/// Counts the threads that have not ended.
#[derive(Default)]
struct Left {
    count: Mutex<usize>,
    changed: Condvar,
}

/// Counts a thread down when it ends, also by a panic.
struct CountOnDrop(Arc<Left>);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        *self.0.count.lock() -= 1;
        self.0.changed.notify_all();
    }
}

struct OneThread {
    tid: libc::pid_t,
    slot: Arc<PhaseSlot>,
    immediate_exit: ImmediateExit,
    thread: Mutex<Option<JoinHandle<VcpuAccount>>>,
}

impl OneThread {
    /// Makes the thread leave `KVM_RUN` and find what has been recorded for it.
    fn interrupt(&self) {
        kick_handler::send(self.tid);
    }
}

/// The vCPUs' threads of one guest.
pub struct CommandedVcpus {
    threads: Vec<OneThread>,
    /// The controls of the vCPUs while they run alone.
    alone: Mutex<Option<Arc<[VcpuControl]>>>,
    left: Arc<Left>,
    with_priority: CpusWithPriority,
}

impl CommandedVcpus {
    /// Starts a thread for each vCPU of `guest`. They run nothing before [`CommandedVcpus::obey`] or
    /// [`CommandedVcpus::run_alone`], and end with the guest.
    ///
    /// # Errors
    /// If the host refuses a thread, a timer or a signal. Those that were started have ended then.
    pub fn start(guest: ReadyGuest) -> io::Result<Arc<Self>> {
        let handler = kick_handler::install();
        handler.map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        signals::install_empty_handler(RtSignal::HostSchedKick.number())?;
        let all_cpus = sys::affinity()?;
        let mut this = Self {
            threads: Vec::with_capacity(guest.vcpus.len()),
            alone: Mutex::new(None),
            left: Arc::default(),
            with_priority: CpusWithPriority::default(),
        };
        for (vcpu, host_cpus) in guest.vcpus.into_iter().zip(guest.config.host_cpus) {
            let host_cpus = host_cpus.unwrap_or_else(|| all_cpus.clone());
            let with_priority = this.with_priority.clone();
            let idle_cpus = IdleCpus::new(host_cpus, all_cpus.clone(), with_priority);
            match start_thread(vcpu, idle_cpus, &this.left) {
                Ok(thread) => this.threads.push(thread),
                Err(error) => {
                    this.end_all();
                    this.join();
                    return Err(error);
                }
            }
        }
        let this = Arc::new(this);
        let of_guest = Arc::downgrade(&this);
        guest.guest.on_end(move |_, _| {
            if let Some(this) = of_guest.upgrade() {
                this.end_all();
            }
        });
        Ok(this)
    }

    /// The signal that makes a vCPU's thread give the vCPU back to its pool.
    #[must_use]
    pub fn kick_signal() -> i32 {
        RtSignal::ExecutorKick.number()
    }

    /// The threads' ids, in the order of the vCPUs.
    pub fn tids(&self) -> impl Iterator<Item = libc::pid_t> {
        self.threads.iter().map(|thread| thread.tid)
    }

    /// From now on the threads obey the pool of `sides`, which are in the order of the vCPUs, and report by
    /// `wakes`. `on_lost` is called, on one of the threads, when the pool is found to be lost though its control
    /// socket is open. It must not block.
    pub fn obey(
        &self,
        sides: Vec<ThreadSide>,
        wakes: WakeReport,
        on_lost: Arc<dyn Fn(PoolLost) + Send + Sync>,
    ) {
        let wakes = Arc::new(wakes);
        for (thread, side) in self.threads.iter().zip(sides) {
            thread.slot.put(Phase::Commanded(Seat {
                side,
                wakes: Arc::clone(&wakes),
                on_lost: Arc::clone(&on_lost),
            }));
        }
        self.stop_alone();
    }

    /// vCPUs that run by command have a priority on `host_cpus`, which are empty if they have none. Threads whose vCPUs
    /// fall asleep from now on are kept off these host CPUs.
    pub fn set_cpus_with_priority(&self, host_cpus: Vec<usize>) {
        self.with_priority.set(host_cpus);
    }

    /// From now on the threads run their vCPUs by themselves. The caller hangs up their pool afterwards, for a
    /// thread may wait for a command.
    pub fn run_alone(&self) {
        let exits = self.threads.iter().map(|thread| &thread.immediate_exit);
        let controls: Arc<[_]> = exits
            .map(|exit| {
                let control = VcpuControl::new(exit.clone());
                // A wake that was rung before may have been lost with the pool.
                control.wake();
                control
            })
            .collect();
        *self.alone.lock() = Some(Arc::clone(&controls));
        self.set_cpus_with_priority(Vec::new());
        for thread in &self.threads {
            thread.slot.put(Phase::Alone(Arc::clone(&controls)));
            thread.interrupt();
        }
    }

    fn stop_alone(&self) {
        if let Some(controls) = self.alone.lock().take() {
            controls.iter().for_each(VcpuControl::stop);
        }
    }

    /// The guest has ended: makes all threads end. A thread that obeys a pool goes on answering until the pool
    /// commands it to stop, or is hung up.
    fn end_all(&self) {
        for thread in &self.threads {
            thread.slot.close();
            thread.interrupt();
        }
        self.stop_alone();
    }

    /// Waits until all threads have ended, at most for `timeout`. False: some have not.
    #[must_use]
    pub fn wait_for_end(&self, timeout: Duration) -> bool {
        let count = self.left.count.lock();
        let left = &self.left.changed;
        *left.wait_timeout_while(count, timeout, |count| *count > 0) == 0
    }

    /// Waits until all threads have ended, which their guest's end and the end of their pool cause. Returns what
    /// was counted for each vCPU, once.
    pub fn join(&self) -> Vec<VcpuAccount> {
        let threads = self.threads.iter();
        let handles = threads.filter_map(|thread| thread.thread.lock().take());
        // A thread that panicked has no numbers; those of the others still count.
        handles
            .map(|handle| handle.join().unwrap_or_default())
            .collect()
    }
}

/// Starts the thread of `vcpu`, which has `idle_cpus` beside its commands.
fn start_thread(vcpu: Box<Vcpu>, idle_cpus: IdleCpus, left: &Arc<Left>) -> io::Result<OneThread> {
    // Linux shows 15 characters.
    let name = format!("vcpu{}:{}", vcpu.index, vcpu.guest.name);
    let builder = thread::Builder::new().name(name.chars().take(15).collect());
    let immediate_exit = vcpu.immediate_exit();
    let slot = Arc::new(PhaseSlot::default());
    *left.count.lock() += 1;
    let count = CountOnDrop(Arc::clone(left));
    let init = move || {
        let thread = VcpuThread::for_this_thread(idle_cpus)?;
        Ok((thread, sys::thread_id()))
    };
    let run = {
        let slot = Arc::clone(&slot);
        move |thread: VcpuThread| {
            let _count = count;
            thread.run(vcpu, &slot)
        }
    };
    let (thread, tid) = spawn_ready(builder, init, run)?;
    Ok(OneThread {
        tid,
        slot,
        immediate_exit,
        thread: Mutex::new(Some(thread)),
    })
}
