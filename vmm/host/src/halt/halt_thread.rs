//! A halt thread: a thread on which one halted vCPU sleeps, for vCPUs that have no thread of their own.
//!
//! Linux before 6.13 waits for an RCU grace period, milliseconds, when a vCPU moves to another thread. So
//! there each vCPU has a thread that always runs it and on which it also sleeps
//! (`executor/vcpu_thread.rs`). Halt threads are for executors that run vCPUs themselves.

use std::fmt;
use std::ops::DerefMut;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use baton_machine::Vcpu;
use baton_os::ready_thread::spawn_ready;

use super::cpu_meter::CpuMeter;
use super::error::HaltThreadError;
use super::exit_on_wake::ExitOnWake;
use super::halt_setup::HaltSetup;
use super::thread_priority::ThreadPriority;
use super::vcpu_sleep::{SleepEnd, VcpuSleep};

/// Stack of a halt thread, bytes: for its own few frames and `on_wake`.
const STACK: usize = 256 << 10;

/// Takes a vCPU whose sleep has ended; called on the halt thread. The number is the CPU time, in
/// nanoseconds, that the thread has used since the last call, or since it began.
type OnWake<V> = Box<dyn Fn(V, SleepEnd, u64) + Send>;

/// A thread on which one halted vCPU at a time sleeps, which comes and goes as a `V`.
pub struct HaltThread<V = Box<Vcpu>> {
    sleep: Arc<VcpuSleep<V>>,
    /// `None` once this is being dropped.
    thread: Option<JoinHandle<()>>,
}

impl<V: DerefMut<Target = Vcpu> + Send + 'static> HaltThread<V> {
    /// Starts a thread called `name`, on which wakes are exits by `by`. Each vCPU that is put there is
    /// given to `on_wake`, exactly once, with no debug flags set and `immediate_exit` cleared. `on_wake`
    /// may put it back.
    ///
    /// The thread inherits the affinity of the caller, and preempts executors of `priority`: while it waits for
    /// a host CPU behind other threads, the policy is not aware yet that the vCPU woke.
    ///
    /// Halt threads work only where [`super::check_wake_step`] succeeds.
    ///
    /// # Errors
    /// If the thread cannot be started, or its signals and timers cannot be set up.
    pub fn new(
        name: String,
        by: ExitOnWake,
        priority: ThreadPriority,
        on_wake: OnWake<V>,
    ) -> Result<Self, HaltThreadError> {
        let sleep = Arc::new(VcpuSleep::new()?);
        let builder = thread::Builder::new().name(name).stack_size(STACK);
        let init = move || {
            priority.preempt();
            Ok((HaltSetup::for_this_thread(by)?, ()))
        };
        let run = {
            let sleep = Arc::clone(&sleep);
            move |setup: HaltSetup| serve(&sleep, &setup, &on_wake)
        };
        let (thread, ()) = spawn_ready(builder, init, run)?;
        Ok(Self {
            sleep,
            thread: Some(thread),
        })
    }

    /// Hands a halted vCPU over to sleep, and returns at once. A vCPU that is not halted is given back as
    /// [`SleepEnd::Woken`] without having run.
    ///
    /// # Errors
    /// Returns the vCPU if the thread has another one.
    pub fn put(&self, vcpu: V) -> Result<(), V> {
        self.sleep.put(vcpu)
    }

    /// The way to the thread for those who do not own it.
    pub(crate) fn sleep(&self) -> &Arc<VcpuSleep<V>> {
        &self.sleep
    }

    /// Requests the vCPU back, and returns at once. The vCPU is given to `on_wake`, as
    /// [`SleepEnd::Interrupted`] unless something else woke it first. If there is none, the next vCPU
    /// that is put is given back at once, so that the request cannot be lost to a [`HaltThread::put`] that
    /// is still on its way.
    pub fn interrupt_sleep(&self) {
        self.sleep.interrupt();
    }
}

/// The vCPU on the thread, if any, is given back as [`SleepEnd::Interrupted`] before this returns.
impl<V> Drop for HaltThread<V> {
    fn drop(&mut self) {
        self.sleep.close();
        if let Some(thread) = self.thread.take()
            // A thread that drops itself, in `on_wake`, ends by itself and cannot be waited for.
            && thread.thread().id() != thread::current().id()
        {
            // A panic in `on_wake` has been reported by then.
            let _ = thread.join();
        }
    }
}

impl<V> fmt::Debug for HaltThread<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HaltThread")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// The thread: lets vCPUs sleep until it is closed.
fn serve<V: DerefMut<Target = Vcpu>>(sleep: &VcpuSleep<V>, setup: &HaltSetup, on_wake: &OnWake<V>) {
    let mut meter = CpuMeter::start();
    while let Some(mut vcpu) = sleep.slot.take() {
        let end = sleep.sleep(&mut vcpu, setup);
        on_wake(vcpu, end, meter.take_ns());
    }
}
