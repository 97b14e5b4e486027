//! The vCPUs' threads of a guest, and how they are made to obey a pool or to run alone. When the guest starts again,
//! its vCPUs go to the same threads.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_config::{GuestConfig, LateHalts};
use baton_link::thread_side::ThreadSide;
use baton_link::wake_file::WakeReport;
use baton_machine::{GuestEnd, GuestRecord, ImmediateExit, Vcpu};
use baton_os::ready_thread::spawn_ready;
use baton_os::signals::{self, RtSignal};
use baton_os::sys;
use thiserror::Error;

use super::idle_cpus::{CpusWithPriority, IdleCpus};
use super::phase::{Phase, PhaseSlot, PoolLost, Seat};
use super::vcpu_thread::VcpuThread;
use crate::executor::{LateHaltsError, check_threads, kick_handler};
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
    detects_halts: bool,
    slot: Arc<PhaseSlot>,
    thread: Mutex<Option<JoinHandle<VcpuAccount>>>,
}

impl OneThread {
    /// Makes the thread leave `KVM_RUN` and find what has been recorded for it.
    fn interrupt(&self) {
        kick_handler::send(self.tid);
    }
}

/// What all threads do.
enum Doing {
    /// They have not begun, or obey a pool.
    Obey,
    /// They run their vCPUs by themselves, which have these controls.
    RunAlone(Arc<[VcpuControl]>),
    /// They run nothing.
    Hold,
}

/// What all threads do, and with which vCPUs.
struct All {
    doing: Doing,
    /// Those of the vCPUs, in their order. None between two starts, for they keep KVM's files of the vCPUs open.
    immediate_exits: Vec<ImmediateExit>,
}

impl All {
    fn controls(&self) -> Arc<[VcpuControl]> {
        let controls = self.immediate_exits.iter().map(|exit| {
            let control = VcpuControl::new(exit.clone());
            // A wake that was rung before may have been lost with the pool.
            control.wake();
            control
        });
        controls.collect()
    }

    /// From here on they do `doing`.
    fn begin(&mut self, doing: Doing) {
        if let Doing::RunAlone(controls) = std::mem::replace(&mut self.doing, doing) {
            controls.iter().for_each(VcpuControl::stop);
        }
    }

    /// The guest has ended: ends the runs of vCPUs that run alone.
    fn end_runs(&mut self) {
        self.immediate_exits.clear();
        if let Doing::RunAlone(controls) = &self.doing {
            controls.iter().for_each(VcpuControl::stop);
        }
    }
}

/// Decides whether a guest that has ended in a certain way starts again.
pub type StartsAgain = Box<dyn Fn(&GuestEnd) -> bool + Send + Sync>;

/// The vCPUs' threads of one guest.
pub struct CommandedVcpus {
    threads: Vec<OneThread>,
    all: Mutex<All>,
    left: Arc<Left>,
    with_priority: CpusWithPriority,
    starts_again: StartsAgain,
}

/// A guest cannot go on with the threads of the one before.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a thread of its vCPUs has failed")]
pub struct ThreadLost;

impl CommandedVcpus {
    /// Starts a thread for each vCPU of `guest`. They run nothing before [`CommandedVcpus::obey`] or
    /// [`CommandedVcpus::run_alone`]. When the guest ends, they release its vCPUs, and end too unless it `starts_again`.
    ///
    /// # Errors
    /// If the host refuses a thread, a timer or a signal. Those that were started have ended then.
    pub fn start(guest: ReadyGuest, starts_again: StartsAgain) -> io::Result<Arc<Self>> {
        let handler = kick_handler::install();
        handler.map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        signals::install_empty_handler(RtSignal::HostSchedKick.number())?;
        let all_cpus = sys::affinity()?;
        let exits = guest.vcpus.iter().map(|vcpu| vcpu.immediate_exit());
        let mut this = Self {
            threads: Vec::with_capacity(guest.vcpus.len()),
            all: Mutex::new(All {
                doing: Doing::Obey,
                immediate_exits: exits.collect(),
            }),
            left: Arc::default(),
            with_priority: CpusWithPriority::default(),
            starts_again,
        };
        for (vcpu, host_cpus) in guest.vcpus.into_iter().zip(guest.config.host_cpus) {
            let host_cpus = host_cpus.unwrap_or_else(|| all_cpus.clone());
            let with_priority = this.with_priority.clone();
            let idle_cpus = IdleCpus::new(host_cpus, all_cpus.clone(), with_priority);
            match start_thread(vcpu, idle_cpus, &this.left) {
                Ok(thread) => this.threads.push(thread),
                Err(error) => {
                    this.end();
                    this.join();
                    return Err(error);
                }
            }
        }
        let this = Arc::new(this);
        this.watch(&guest.guest);
        Ok(this)
    }

    /// From here on the threads notice the end of `guest`.
    fn watch(self: &Arc<Self>, guest: &GuestRecord) {
        let of_guest = Arc::downgrade(self);
        guest.on_end(move |_, end| {
            let Some(this) = of_guest.upgrade() else {
                return;
            };
            match (this.starts_again)(end) {
                true => this.release(),
                false => this.end(),
            }
        });
    }

    /// The guest has started again as `guest`, of the same number of vCPUs, which go on in the place of those before.
    /// The host must have back what those had of it.
    ///
    /// # Errors
    /// If one of the threads has ended. The guest has ended then, too.
    pub fn replace(self: &Arc<Self>, guest: ReadyGuest) -> Result<(), ThreadLost> {
        let mut all = self.all.lock();
        if !self.all_live() {
            drop(all);
            guest.guest.end(GuestEnd::Removed);
            return Err(ThreadLost);
        }
        let exits = guest.vcpus.iter().map(|vcpu| vcpu.immediate_exit());
        all.immediate_exits = exits.collect();
        let alone = match all.doing {
            Doing::RunAlone(_) => Some(all.controls()),
            Doing::Obey | Doing::Hold => None,
        };
        for (thread, vcpu) in self.threads.iter().zip(guest.vcpus) {
            // With the vCPU, so that it does not run with the controls of the one before.
            let phase = alone.clone().map(Phase::Alone);
            thread.slot.put_vcpu(vcpu, phase);
            thread.interrupt();
        }
        if let Some(controls) = alone {
            all.doing = Doing::RunAlone(controls);
        }
        drop(all);
        self.watch(&guest.guest);
        Ok(())
    }

    /// The signal that makes a vCPU's thread give the vCPU back to its pool.
    #[must_use]
    pub fn kick_signal() -> i32 {
        RtSignal::ExecutorKick.number()
    }

    /// Refuses the guest of `config`, whose threads these are, if it has a reservation and halts are noticed late on one
    /// of them.
    ///
    /// # Errors
    /// If the user has not accepted that.
    pub fn check_late_halts(
        &self,
        accepted: LateHalts,
        config: &GuestConfig,
    ) -> Result<(), LateHaltsError> {
        let detect_halts = self.threads.iter().all(|thread| thread.detects_halts);
        check_threads(accepted, std::slice::from_ref(config), detect_halts)
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
        let mut all = self.all.lock();
        for (thread, side) in self.threads.iter().zip(sides) {
            thread.slot.put(Phase::Commanded(Seat {
                side,
                wakes: Arc::clone(&wakes),
                on_lost: Arc::clone(&on_lost),
            }));
        }
        all.begin(Doing::Obey);
    }

    /// vCPUs that run by command have a priority on `host_cpus`, which are empty if they have none. Threads whose vCPUs
    /// fall asleep from now on are kept off these host CPUs.
    pub fn set_cpus_with_priority(&self, host_cpus: Vec<usize>) {
        self.with_priority.set(host_cpus);
    }

    /// From now on the threads run their vCPUs by themselves. The caller hangs up their pool afterwards, for a
    /// thread may wait for a command.
    pub fn run_alone(&self) {
        let mut all = self.all.lock();
        let controls = all.controls();
        self.set_cpus_with_priority(Vec::new());
        for thread in &self.threads {
            thread.slot.put(Phase::Alone(Arc::clone(&controls)));
            thread.interrupt();
        }
        all.begin(Doing::RunAlone(controls));
    }

    /// From now on the threads run nothing. The caller hangs up their pool afterwards.
    pub fn hold(&self) {
        let mut all = self.all.lock();
        for thread in &self.threads {
            thread.slot.put(Phase::Held);
            thread.interrupt();
        }
        all.begin(Doing::Hold);
    }

    /// The guest has ended, and starts again: makes all threads release their vCPUs.
    fn release(&self) {
        self.threads.iter().for_each(OneThread::interrupt);
        self.all.lock().end_runs();
    }

    /// The guest has ended for good: makes all threads end. A thread that obeys a pool goes on answering until the pool
    /// commands it to stop, or is hung up.
    pub fn end(&self) {
        for thread in &self.threads {
            thread.slot.close();
            thread.interrupt();
        }
        self.all.lock().end_runs();
    }

    /// Whether none of the threads has ended.
    #[must_use]
    pub fn all_live(&self) -> bool {
        *self.left.count.lock() == self.threads.len()
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
    let slot = Arc::new(PhaseSlot::default());
    *left.count.lock() += 1;
    let count = CountOnDrop(Arc::clone(left));
    let init = move || {
        let thread = VcpuThread::for_this_thread(idle_cpus)?;
        let facts = (sys::thread_id(), thread.detects_halts());
        Ok((thread, facts))
    };
    let run = {
        let slot = Arc::clone(&slot);
        move |thread: VcpuThread| {
            let _count = count;
            thread.run(vcpu, &slot)
        }
    };
    let (thread, (tid, detects_halts)) = spawn_ready(builder, init, run)?;
    Ok(OneThread {
        tid,
        detects_halts,
        slot,
        thread: Mutex::new(Some(thread)),
    })
}
