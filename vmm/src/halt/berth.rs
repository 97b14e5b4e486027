//! A berth: the thread in which a halted vCPU sleeps until something wakes it.
//!
//! The vCPU stays halted in `KVM_RUN`, so the timer of its local APIC, interrupts from its siblings
//! and from devices all reach it there and nobody has to emulate or watch them. [`super::wake_step`]
//! tells how waking becomes an exit, `slot.rs` how the vCPU is handed over and called back.
//!
//! What runs here is not charged to anybody: waking up, and the guest's one instruction. If that
//! instruction is a device access, it has been handled when the vCPU comes back.
//!
//! Linux before 6.13 waits for an RCU grace period, milliseconds, when a vCPU moves to another
//! thread; the waiting is done in the berth's thread at the way in, and in the executor's at the
//! way out.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use kvm_bindings::KVM_MP_STATE_HALTED;
use thiserror::Error;
use vmm_sys_util::signal::{Killable, unblock_signal};

use super::leash::Leash;
use super::recall_signal::{self, recall_signal};
use super::slot::Slot;
use super::{is_halted, prompt, wake_step};
use crate::machine::{Exit, ImmediateExit, Vcpu};

/// For the thread's own few frames and `on_wake`.
const STACK: usize = 256 << 10;
/// After KVM would not let a vCPU sleep that waits to be started, the first pause; each further one
/// is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Why a vCPU left its berth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BerthEnd {
    /// Something woke it: it is runnable, and the interrupt, if it was one, is delivered when it
    /// runs next. It has executed one instruction at most (but see `leash.rs` for KVM-PVM).
    Woken,
    /// [`Berth::recall`], or the end of the berth. It may have woken at the same moment; then it
    /// sleeps no more when it runs next.
    Recalled,
    /// It woke, and its first instruction needed this. Never [`Exit::Interrupted`] or
    /// [`Exit::Debug`]. [`Exit::Ended`] also if KVM did not let it sleep; its guest then has ended.
    Exited(Exit),
}

/// A berth that could not be made.
#[derive(Debug, Error)]
pub enum BerthError {
    /// No thread.
    #[error("cannot start a thread for halted vCPUs ({0}): raise the limit of threads (ulimit -u)")]
    Thread(io::Error),
    /// Nothing that would stop a vCPU that runs on in its berth.
    #[error("cannot set up a CPU clock signal for halted vCPUs: {0}")]
    Leash(io::Error),
    /// No signal handler.
    #[error("cannot install the signal that wakes halted vCPUs: {0}")]
    Signal(vmm_sys_util::errno::Error),
}

/// What becomes of a vCPU that leaves its berth; called in the berth's thread.
type OnWake = Box<dyn Fn(Box<Vcpu>, BerthEnd) + Send>;

/// Place for one halted vCPU to sleep in, with a thread of its own.
pub struct Berth {
    slot: Arc<Slot<Box<Vcpu>, ImmediateExit>>,
    /// There until dropped.
    thread: Option<JoinHandle<()>>,
}

impl Berth {
    /// An empty berth, whose thread is called `name`. Each vCPU that is put there leaves through
    /// `on_wake`, exactly once, with no debug flags set and `immediate_exit` cleared. `on_wake` may
    /// put it back.
    ///
    /// The thread inherits affinity and scheduling policy from the caller. While it waits for a
    /// host CPU behind other threads, the policy does not know yet that the vCPU woke: executors
    /// with a real-time priority need berths with a higher one, or with CPUs of their own.
    ///
    /// Berths work only where [`super::check_wake_step`] says so.
    ///
    /// # Errors
    /// If the host has no thread to give.
    pub fn new(name: String, on_wake: OnWake) -> Result<Self, BerthError> {
        recall_signal::install().map_err(BerthError::Signal)?;
        let slot = Arc::new(Slot::new());
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn({
                let slot = Arc::clone(&slot);
                move || {
                    // The creator may have had it blocked. The signal number is a valid one.
                    let _ = unblock_signal(recall_signal());
                    prompt::wake_promptly();
                    let (leash, tied) = match Leash::tie(recall_signal()) {
                        Ok(leash) => (Some(leash), Ok(())),
                        Err(error) => (None, Err(error)),
                    };
                    // The creator waits for it.
                    let _ = ready.send(tied);
                    if leash.is_some() {
                        live(&slot, &on_wake);
                    }
                }
            })
            .map_err(BerthError::Thread)?;
        // A thread that says nothing has panicked before it could.
        is_ready
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
            .map_err(BerthError::Leash)?;
        Ok(Self {
            slot,
            thread: Some(thread),
        })
    }

    /// Hands a halted vCPU over to sleep, and returns at once. One that is not halted comes back
    /// as [`BerthEnd::Woken`] without having run.
    ///
    /// # Errors
    /// Gives the vCPU back if the berth is taken.
    pub fn put(&self, vcpu: Box<Vcpu>) -> Result<(), Box<Vcpu>> {
        self.slot.put(vcpu)
    }

    /// Asks for the vCPU back, and returns at once: it comes through `on_wake`, as
    /// [`BerthEnd::Recalled`] unless something else woke it first. If there is none, the next one
    /// to be put here comes back at once, so that a recall cannot be lost to a [`Berth::put`] that
    /// is still on its way.
    pub fn recall(&self) {
        self.slot.recall(|handle| self.wake(handle));
    }

    /// Under the slot's lock: the thread is in or before `KVM_RUN`, and alive.
    fn wake(&self, handle: &ImmediateExit) {
        handle.set(true);
        if let Some(thread) = &self.thread {
            // Fails only for a thread that is gone, which then has nothing to be woken from.
            let _ = thread.kill(recall_signal());
        }
    }
}

/// The vCPU in it, if any, comes back as [`BerthEnd::Recalled`] before this returns.
impl Drop for Berth {
    fn drop(&mut self) {
        self.slot.close(|handle| self.wake(handle));
        if let Some(thread) = self.thread.take()
            // Dropped by its own `on_wake`: the thread ends by itself, and cannot be waited for.
            && thread.thread().id() != thread::current().id()
        {
            // A panic in `on_wake` has been reported by then.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Berth")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

fn live(slot: &Slot<Box<Vcpu>, ImmediateExit>, on_wake: &OnWake) {
    while let Some(mut vcpu) = slot.next() {
        let end = stay(slot, &mut vcpu);
        on_wake(vcpu, end);
    }
}

/// Steps 2 to 6 of the protocol in `slot.rs`.
fn stay(slot: &Slot<Box<Vcpu>, ImmediateExit>, vcpu: &mut Vcpu) -> BerthEnd {
    vcpu.complete_pending();
    let end = if !sleeps(vcpu) {
        // Whatever it has to run, the policy decides when.
        BerthEnd::Woken
    } else if !wake_step::set(vcpu) {
        BerthEnd::Exited(Exit::Ended)
    } else if slot.enter(vcpu.immediate_exit()) {
        sleep(slot, vcpu)
    } else {
        BerthEnd::Recalled
    };
    slot.leave();
    vcpu.immediate_exit().set(false);
    if wake_step::clear(vcpu) {
        end
    } else {
        BerthEnd::Exited(Exit::Ended)
    }
}

/// Step 4.
fn sleep(slot: &Slot<Box<Vcpu>, ImmediateExit>, vcpu: &mut Vcpu) -> BerthEnd {
    let mut pause = FIRST_PAUSE;
    loop {
        match vcpu.run() {
            Exit::Debug => return BerthEnd::Woken,
            // The leash or a recall, or a signal for somebody else, and perhaps a wake too.
            Exit::Interrupted => match vcpu.mp_state() {
                Ok(state) if is_halted(state) => {
                    if slot.is_recalled() {
                        return BerthEnd::Recalled;
                    }
                    // A guest may hold an NMI against a vCPU that it has not started. KVM then
                    // neither starts it nor sleeps, and that must not become a loop.
                    if state != KVM_MP_STATE_HALTED {
                        slot.pause(pause);
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                _ => return BerthEnd::Woken,
            },
            exit => return BerthEnd::Exited(exit),
        }
    }
}

/// Whether KVM says that it sleeps. KVM always says for a vCPU of a living VM.
fn sleeps(vcpu: &Vcpu) -> bool {
    vcpu.mp_state().is_ok_and(is_halted)
}
