//! Guards against a vCPU that wakes and is not stopped before it runs on.
//!
//! Single-stepping ends `KVM_RUN` after the first instruction, but a guest can choose an instruction for
//! which it does not. An instruction that enters a handler (`int`, a fault) or the kernel (`syscall`)
//! clears the trap flag that the step is made of. And KVM-PVM does not stop a guest whose first instruction
//! leads to user mode (`iretq`), where the guest runs natively. Interrupts are still held back, but the
//! guest would run for as long as it likes without the policy having picked it. So while a vCPU sleeps, the
//! thread has a signal sent to itself for each slice of CPU time that it uses, which ends `KVM_RUN`. Asleep
//! the thread uses none.
//!
//! By default the signal comes at the kernel's next tick, which costs nothing. For a vCPU that has overrun
//! its single step once ([`Vcpu::overran_single_step`](baton_machine::Vcpu::overran_single_step)), it comes
//! after 100 us of CPU time. That takes a timer of its own, set and cleared as the thread goes on and off
//! its CPU: measured 20 us each time where the host is itself a guest, and twice that added to a wake-up.
//!
//! Where waking up itself takes longer than a slice (a nested host under emulation), the signal would end
//! every `KVM_RUN` before the guest has come to its instruction. So each signal that finds the vCPU still
//! halted doubles the slice for the rest of the sleep, up to 16 ms.

use std::io;

use baton_os::thread_timer::{ThreadTimer, TimerClock};
use perf_event_open_sys::bindings::{DISABLE, ENABLE, PERF_COUNT_SW_TASK_CLOCK};

use super::perf_signal::{Counted, PerfSignal};

/// The short slice, ns of CPU time: well above what it takes to go to sleep in `KVM_RUN`.
const SHORT_NS: u64 = 100_000;
/// The default slice, ns of CPU time; the kernel rounds it up to its tick.
const LONG_NS: u64 = 1_000_000;
/// The longest slice, ns of CPU time: a guest that halts again after it ran on looks like a guest that has
/// not come to its instruction yet.
const LONGEST_NS: u64 = 16_000_000;

/// The means of a [`RunawayGuard`], for the thread that made it; to be used and dropped there.
pub(super) struct RunawayTimer {
    /// Exact to some microseconds. `None` where it is not needed or perf events are not permitted.
    exact: Option<PerfSignal>,
    /// Exact to a tick of the kernel.
    by_tick: ThreadTimer,
}

impl RunawayTimer {
    /// For the calling thread, with signal `signo`, which has a handler. Nothing is signalled before
    /// [`RunawayTimer::start`]. With `exact`, short slices are possible if the host permits perf events.
    ///
    /// # Errors
    /// If the host has no timer left.
    pub(super) fn new(signo: libc::c_int, exact: bool) -> io::Result<Self> {
        let clock = || {
            let counted = Counted::Software(PERF_COUNT_SW_TASK_CLOCK);
            PerfSignal::open(counted, SHORT_NS, signo, None).ok()
        };
        Ok(Self {
            exact: exact.then(clock).flatten(),
            by_tick: ThreadTimer::new(TimerClock::ThreadCpu, signo)?,
        })
    }

    /// Signals the thread at each slice of its CPU time until the guard is dropped. The slices are short
    /// if `short` is set and that is possible.
    ///
    /// # Errors
    /// If the kernel does not switch the event or the timer on.
    pub(super) fn start(&self, short: bool) -> io::Result<RunawayGuard<'_>> {
        let (clock, slice_ns) = match &self.exact {
            Some(clock) if short => {
                clock.control(ENABLE, 0)?;
                (GuardClock::Perf(clock), SHORT_NS)
            }
            _ => {
                self.by_tick.set_period(LONG_NS)?;
                (GuardClock::Tick(&self.by_tick), LONG_NS)
            }
        };
        Ok(RunawayGuard { clock, slice_ns })
    }
}

/// What measures the slices.
#[derive(Clone, Copy)]
enum GuardClock<'a> {
    Perf(&'a PerfSignal),
    Tick(&'a ThreadTimer),
}

/// While it lives, its thread is signalled at each slice of CPU time.
pub(super) struct RunawayGuard<'a> {
    clock: GuardClock<'a>,
    slice_ns: u64,
}

impl RunawayGuard<'_> {
    /// Makes the slices twice as long from here on.
    pub(super) fn double_slice(&mut self) {
        if self.slice_ns >= LONGEST_NS {
            return;
        }
        self.slice_ns *= 2;
        // What could be set once can be set again. If not, a signal too many does no harm.
        let _ = match self.clock {
            GuardClock::Perf(clock) => clock.set_period(self.slice_ns),
            GuardClock::Tick(timer) => timer.set_period(self.slice_ns),
        };
    }
}

impl Drop for RunawayGuard<'_> {
    fn drop(&mut self) {
        // As in `double_slice`.
        let _ = match self.clock {
            GuardClock::Perf(clock) => clock.control(DISABLE, 0),
            GuardClock::Tick(timer) => timer.set_period(0),
        };
        if let GuardClock::Perf(clock) = self.clock
            && self.slice_ns != SHORT_NS
        {
            let _ = clock.set_period(SHORT_NS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::thread;

    use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

    thread_local! {
        static SEEN: Cell<u64> = const { Cell::new(0) };
    }

    extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        SEEN.set(SEEN.get() + 1);
    }

    fn signo() -> libc::c_int {
        let signo = SIGRTMIN() + 7;
        register_signal_handler(signo, on_signal).expect("handler");
        signo
    }

    fn spin_until_signalled() {
        while SEEN.get() < 3 {
            std::hint::spin_loop();
        }
    }

    fn is_signalled(short: bool) {
        thread::spawn(move || {
            let timer = RunawayTimer::new(signo(), true).expect("timer");
            let _guard = timer.start(short).expect("guard");
            spin_until_signalled();
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn a_guarded_thread_is_signalled_again_and_again_while_it_works() {
        is_signalled(true);
        is_signalled(false);
    }

    #[test]
    fn a_doubled_slice_still_signals_and_is_short_again_the_next_time() {
        thread::spawn(|| {
            let timer = RunawayTimer::new(signo(), true).expect("timer");
            let mut guard = timer.start(true).expect("guard");
            guard.double_slice();
            guard.double_slice();
            spin_until_signalled();
            let slice_ns = guard.slice_ns;
            drop(guard);
            assert_eq!(slice_ns, 4 * timer.start(true).expect("guard").slice_ns);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn without_perf_events_the_cpu_clock_signals() {
        thread::spawn(|| {
            let timer = RunawayTimer {
                exact: None,
                by_tick: ThreadTimer::new(TimerClock::ThreadCpu, signo()).expect("timer"),
            };
            let _guard = timer.start(true).expect("guard");
            spin_until_signalled();
        })
        .join()
        .expect("thread");
    }
}
