//! `--sched host` and `--sched host-deadline`: a thread per vCPU, and the host kernel decides.
//!
//! This is how other VMMs run vCPUs, kept as the honest baseline: nothing here knows about locks.
//!
//! # Stopping a thread
//! 1. The stopper sets `stop`, then `immediate_exit`, then signals the thread.
//! 2. The thread clears `immediate_exit`, then (a full fence between) looks at `stop`, then enters
//!    `KVM_RUN`.
//!
//! Either the thread sees `stop`; or its clearing came before the stopper's setting, and `KVM_RUN`
//! returns at once; or it is inside, and the signal ends it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_config::units::format_cpus;
use baton_config::{Reservation, RunConfig, SchedMode};
use baton_machine::{Doorbell, Exit, Guest, ImmediateExit, Vcpu};
use baton_os::signals::{self, RtSignal};
use baton_os::sys;
use thiserror::Error;

use crate::runner::{ReadyGuest, Runner, RunnerReport, VcpuAccount};
use crate::sync::{Condvar, Mutex, MutexGuard};

mod deadline;

/// The host's scheduler could not be used.
#[derive(Debug, Error)]
pub enum HostSchedError {
    /// No thread.
    #[error("cannot start a thread for a vCPU: {0}")]
    Thread(io::Error),
    /// No pinning.
    #[error("a vCPU's thread cannot be pinned to host CPUs {cpus}: {source}")]
    Affinity {
        /// The CPUs.
        cpus: String,
        /// Why not.
        source: io::Error,
    },
    /// `SCHED_DEADLINE` with less than all CPUs.
    #[error(
        "SCHED_DEADLINE takes only threads that may use every host CPU ({all}), and these may use \
         {pool}: leave --host-cpus and host_cpus out, start Baton without taskset or a cpuset, or use \
         --sched host"
    )]
    DeadlinePinned {
        /// All CPUs of the host.
        all: String,
        /// The pool.
        pool: String,
    },
    /// `SCHED_DEADLINE` refused.
    #[error(
        "the host refused SCHED_DEADLINE {reservation} for vCPU {vcpu} of guest {guest} ({source}): \
         {advice}"
    )]
    Deadline {
        /// The guest's name.
        guest: String,
        /// Index of the vCPU.
        vcpu: u32,
        /// What was asked for.
        reservation: Reservation,
        /// The answer.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// No kick signal.
    #[error("cannot install the signal that interrupts vCPUs: {0}")]
    Signal(io::Error),
}

/// What a vCPU's thread and others share about it.
#[derive(Debug)]
struct Slot {
    stop: AtomicBool,
    /// `None` when its thread has ended: this keeps KVM's file of the vCPU open.
    immediate_exit: Mutex<Option<ImmediateExit>>,
    /// Kernel id of its thread; 0 until it has started, and after its end.
    tid: AtomicI32,
    /// A wake that came, whether or not the vCPU was idle.
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Slot {
    fn new(vcpu: &Vcpu) -> Self {
        Self {
            stop: AtomicBool::new(false),
            immediate_exit: Mutex::new(Some(vcpu.immediate_exit())),
            tid: AtomicI32::new(0),
            woken: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    fn wake(&self) {
        *self.woken.lock() = true;
        self.wake.notify_one();
    }

    /// Waits for a wake, at most for `limit`; takes it.
    fn idle(&self, limit: Option<Duration>) {
        let woken = self.woken.lock();
        let mut woken = match limit {
            None => self.wake.wait_while(woken, |woken| !*woken),
            Some(limit) => self.wake.wait_timeout_while(woken, limit, |woken| !*woken),
        };
        *woken = false;
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(immediate_exit) = &*self.immediate_exit() {
            immediate_exit.set(true);
        }
        self.wake();
        let tid = self.tid.load(Ordering::SeqCst);
        if tid != 0 {
            signals::send(tid, RtSignal::HostSchedKick.number());
        }
    }

    /// The vCPU is done; called by its thread.
    fn leave(&self) {
        self.tid.store(0, Ordering::SeqCst);
        *self.immediate_exit() = None;
    }

    fn immediate_exit(&self) -> MutexGuard<'_, Option<ImmediateExit>> {
        self.immediate_exit.lock()
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// How the kernel is to schedule one thread.
#[derive(Clone, Debug)]
enum Placement {
    Pinned(Vec<usize>),
    Deadline(Reservation),
}

/// Holds threads back until it is opened.
#[derive(Debug, Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open));
    }
}

/// The threads of all guests.
struct Threads {
    slots: Vec<Arc<[Slot]>>,
    threads: Vec<Vec<JoinHandle<VcpuAccount>>>,
}

/// Starts a thread for each vCPU of `guests`.
///
/// # Errors
/// If the host refuses a thread or its scheduling; then nothing runs.
pub fn start(
    config: &RunConfig,
    pool: &[usize],
    guests: Vec<ReadyGuest>,
) -> Result<Box<dyn Runner>, HostSchedError> {
    signals::install_empty_handler(RtSignal::HostSchedKick.number())
        .map_err(HostSchedError::Signal)?;
    let placements = match config.sched {
        SchedMode::HostDeadline => deadline::placements(pool, &guests)?,
        SchedMode::Host | SchedMode::Baton => pinned(pool, &guests),
    };
    // All begin together, and none if one cannot.
    let gate = Arc::new(Gate::default());
    let (report, reports) = mpsc::channel();
    let mut all = Threads {
        slots: Vec::new(),
        threads: Vec::new(),
    };
    let mut failure = None;
    let mut started = 0;
    for (ready, places) in guests.into_iter().zip(placements) {
        let slots: Arc<[Slot]> = ready.vcpus.iter().map(|vcpu| Slot::new(vcpu)).collect();
        all.slots.push(Arc::clone(&slots));
        let mut handles = Vec::new();
        for (vcpu, place) in ready.vcpus.into_iter().zip(places) {
            let slots = Arc::clone(&slots);
            let gate = Arc::clone(&gate);
            let report = report.clone();
            let name = format!("vcpu{}:{}", vcpu.index, ready.guest.name);
            let spawned = thread::Builder::new()
                .name(name.chars().take(15).collect())
                .spawn(move || {
                    let placed = place.apply(&vcpu);
                    let _ = report.send(placed);
                    gate.pass();
                    run_vcpu(vcpu, &slots)
                });
            match spawned {
                Ok(handle) => {
                    handles.push(handle);
                    started += 1;
                }
                Err(error) => failure = Some(HostSchedError::Thread(error)),
            }
        }
        all.threads.push(handles);
        let slots = Arc::clone(&slots);
        ready
            .guest
            .on_end(move |_, _| slots.iter().for_each(Slot::stop));
    }
    for placed in reports.iter().take(started) {
        if let Err(error) = placed {
            failure.get_or_insert(error);
        }
    }
    if failure.is_some() {
        all.slots.iter().flat_map(|s| s.iter()).for_each(Slot::stop);
    }
    gate.open();
    match failure {
        None => Ok(Box::new(all)),
        Some(error) => {
            Box::new(all).stop();
            Err(error)
        }
    }
}

fn pinned(pool: &[usize], guests: &[ReadyGuest]) -> Vec<Vec<Placement>> {
    guests
        .iter()
        .map(|ready| {
            ready
                .config
                .host_cpus
                .iter()
                .map(|own| Placement::Pinned(own.clone().unwrap_or_else(|| pool.to_vec())))
                .collect()
        })
        .collect()
}

impl Placement {
    fn apply(&self, vcpu: &Vcpu) -> Result<(), HostSchedError> {
        match self {
            Self::Pinned(cpus) => {
                sys::set_affinity(cpus).map_err(|source| HostSchedError::Affinity {
                    cpus: format_cpus(cpus),
                    source,
                })
            }
            Self::Deadline(reservation) => deadline::apply(vcpu, *reservation),
        }
    }
}

impl Runner for Threads {
    fn stop(self: Box<Self>) -> RunnerReport {
        self.slots
            .iter()
            .flat_map(|s| s.iter())
            .for_each(Slot::stop);
        // A thread that panicked has no numbers; the others' still count.
        let join = |thread: JoinHandle<VcpuAccount>| thread.join().unwrap_or_default();
        let vcpus = self
            .threads
            .into_iter()
            .map(|threads| threads.into_iter().map(join).collect());
        RunnerReport {
            vcpus: vcpus.collect(),
            ..RunnerReport::default()
        }
    }
}

/// Runs a vCPU on this thread until its guest ends or it is told to stop.
fn run_vcpu(mut vcpu: Box<Vcpu>, slots: &[Slot]) -> VcpuAccount {
    let slot = &slots[vcpu.index as usize];
    slot.tid.store(sys::thread_id(), Ordering::SeqCst);
    let immediate_exit = vcpu.immediate_exit();
    let before = sys::thread_schedstat();
    while !slot.should_stop() {
        let entered = sys::coarse_monotonic_ns();
        match vcpu.run() {
            Exit::Handled | Exit::Debug => {}
            Exit::Interrupted => {
                immediate_exit.set(false);
                fence(Ordering::SeqCst);
                // Nobody kicks but to stop it: the process was stopped. The vCPU may have run or slept
                // in KVM before; then the guest is told for nothing. What the host's scheduler takes
                // ends no `KVM_RUN`, and stays between KVM and the guest.
                vcpu.missed(sys::coarse_monotonic_ns().saturating_sub(entered));
            }
            Exit::Doorbell(Doorbell::Idle) => idle(&mut vcpu, slot),
            // Without KVM's interrupt controller a halt would come here; nothing but the guest's
            // own doorbell could end it.
            Exit::Halted => idle(&mut vcpu, slot),
            Exit::Doorbell(Doorbell::Wake { target }) => slots[target as usize].wake(),
            // The host kernel takes no hints.
            Exit::Doorbell(Doorbell::Wait | Doorbell::Release { .. }) => {}
            Exit::Ended => break,
        }
    }
    slot.leave();
    let after = sys::thread_schedstat();
    let ran_ns = after.ran_ns.saturating_sub(before.ran_ns);
    VcpuAccount {
        ran_ns,
        charged_ns: ran_ns,
        waited_ns: after.waited_ns.saturating_sub(before.waited_ns),
        switches: after.switches.saturating_sub(before.switches),
        exits: vcpu.exits,
        ..Default::default()
    }
}

/// Waits for a wake of an idle vCPU, or for the time that it has asked for.
fn idle(vcpu: &mut Vcpu, slot: &Slot) {
    let limit = idle_limit(&vcpu.guest, vcpu.index);
    let wait_ns = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    let until = wait_ns.map(|wait| sys::coarse_monotonic_ns().saturating_add(wait));
    vcpu.gaps.idles(until);
    slot.idle(limit);
}

/// How long an idle vCPU may sleep if nobody wakes it; `None` for ever.
fn idle_limit(guest: &Guest, index: u32) -> Option<Duration> {
    match guest.hints.idle_until_tsc(index) {
        0 => None,
        tsc => Some(Duration::from_nanos(guest.clock.until(tsc))),
    }
}
