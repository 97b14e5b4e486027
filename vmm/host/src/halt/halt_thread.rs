//! A berth: a [`Bed`] with a thread of its own, for a vCPU that has none.
//!
//! Linux before 6.13 waits for an RCU grace period, milliseconds, when a vCPU moves to another
//! thread; so there each vCPU has a thread, which also is where it sleeps (`executor/vcpu_thread.rs`),
//! and berths are for executors that run vCPUs themselves.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use baton_machine::{Exit, Vcpu};
use thiserror::Error;

use super::vcpu_sleep::{Bed, Bedding};
use super::{ExitOnWake, Spent, short_slice};

/// For the thread's own few frames and `on_wake`.
const STACK: usize = 256 << 10;

/// Why a vCPU left its berth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BerthEnd {
    /// Something woke it: the interrupt, if it was one, is delivered when it runs next, and until then
    /// KVM may still call it halted. It has executed nothing ([`ExitOnWake::Events`]), or one
    /// instruction at most ([`ExitOnWake::Step`], but see `runaway_guard.rs`).
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

/// What becomes of a vCPU that leaves its berth; called in the berth's thread. The number is the CPU
/// time, in nanoseconds, that the thread has used since it called last, or since it began.
type OnWake = Box<dyn Fn(Box<Vcpu>, BerthEnd, u64) + Send>;

/// Place for one halted vCPU to sleep in, with a thread of its own.
pub struct Berth {
    bed: Arc<Bed>,
    /// There until dropped.
    thread: Option<JoinHandle<()>>,
}

impl Berth {
    /// An empty berth, whose thread is called `name`, and where wakes are exits by `way`. Each vCPU that is put there leaves through
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
    pub fn new(name: String, way: ExitOnWake, on_wake: OnWake) -> Result<Self, BerthError> {
        let bed = Arc::new(Bed::new()?);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn({
                let bed = Arc::clone(&bed);
                move || {
                    short_slice::wake_promptly();
                    let (bedding, made) = match Bedding::of_this_thread(way) {
                        Ok(bedding) => (Some(bedding), Ok(())),
                        Err(error) => (None, Err(error)),
                    };
                    // The creator waits for it.
                    let _ = ready.send(made);
                    if let Some(bedding) = bedding {
                        live(&bed, &bedding, &on_wake);
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
            bed,
            thread: Some(thread),
        })
    }

    /// Hands a halted vCPU over to sleep, and returns at once. One that is not halted comes back
    /// as [`BerthEnd::Woken`] without having run.
    ///
    /// # Errors
    /// Gives the vCPU back if the berth is taken.
    pub fn put(&self, vcpu: Box<Vcpu>) -> Result<(), Box<Vcpu>> {
        self.bed.slot.put(vcpu)
    }

    /// Asks for the vCPU back, and returns at once: it comes through `on_wake`, as
    /// [`BerthEnd::Recalled`] unless something else woke it first. If there is none, the next one
    /// to be put here comes back at once, so that a recall cannot be lost to a [`Berth::put`] that
    /// is still on its way.
    pub fn recall(&self) {
        self.bed.recall();
    }
}

/// The vCPU in it, if any, comes back as [`BerthEnd::Recalled`] before this returns.
impl Drop for Berth {
    fn drop(&mut self) {
        self.bed.close();
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

fn live(bed: &Bed, bedding: &Bedding, on_wake: &OnWake) {
    let mut spent = Spent::from_now();
    while let Some(mut vcpu) = bed.slot.next() {
        let end = bed.stay(&mut vcpu, bedding);
        on_wake(vcpu, end, spent.report());
    }
}
