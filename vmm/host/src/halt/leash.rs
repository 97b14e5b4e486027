//! The leash: a vCPU that wakes in its berth and is not stopped there does not get far.
//!
//! Single-stepping ends `KVM_RUN` after the first instruction, but a guest can choose one for which it
//! does not. Anything that enters a handler (`int`, a fault) or the kernel (`syscall`) clears the trap
//! flag that the step is made of. And KVM-PVM does not stop a guest whose first instruction leads to
//! user mode (`iretq`), where it runs natively. Interrupts are still held back, but it would run
//! outside of the policy's turns for as long as it likes. So the thread has a signal sent to itself for
//! every slice of CPU time that it uses while the leash is held, which ends `KVM_RUN`; asleep it uses
//! none.
//!
//! The signal comes at the kernel's next tick, which costs nothing. For a vCPU that has slipped away
//! once ([`Vcpu::overran_single_step`](baton_machine::Vcpu::overran_single_step)), it comes after 100 us of CPU time. That takes a
//! timer of its own, set and cleared as the thread goes on and off its CPU: measured 20 us each time
//! where the host is itself a guest, and twice that added to a wake-up.
//!
//! Where waking up itself takes longer than the leash (a nested host under emulation), the signal
//! would end every `KVM_RUN` before the guest has come to its instruction. So each signal that finds
//! the vCPU still halted doubles the length for the rest of the stay, up to 16 ms.

use std::io;
use std::mem;
use std::ptr;

use baton_os::sys;
use perf_event_open_sys::bindings::{DISABLE, ENABLE, PERF_COUNT_SW_TASK_CLOCK};

use super::perf_signal::{Counted, PerfSignal};

/// CPU time between signals: well above what it takes to go to sleep in `KVM_RUN`.
const SHORT_NS: u64 = 100_000;
/// The same for the long leash; the kernel rounds it up to its tick.
const LONG_NS: u64 = 1_000_000;
/// No longer than this: a guest that halts again after it slipped away looks like one that has not come
/// to its instruction yet.
const LONGEST_NS: u64 = 16_000_000;

/// A leash for the thread that made it; to be held and dropped there.
pub(super) struct Leash {
    /// Exact to some microseconds; `None` where it is not wanted or perf events are not permitted.
    short: Option<PerfSignal>,
    /// Exact to a tick of the kernel.
    long: CpuTimer,
}

impl Leash {
    /// For the calling thread, with signal `signo`, which has a handler. Slack until it is held. With
    /// `short` it can be.
    pub(super) fn new(signo: libc::c_int, short: bool) -> io::Result<Self> {
        let clock = || {
            PerfSignal::open(
                Counted::Software(PERF_COUNT_SW_TASK_CLOCK),
                SHORT_NS,
                signo,
                None,
            )
            .ok()
        };
        Ok(Self {
            short: short.then(clock).flatten(),
            long: CpuTimer::new(signo)?,
        })
    }

    /// Cuts the thread's CPU time into slices until the answer is dropped; short ones where that is
    /// possible and wanted.
    pub(super) fn hold(&self, short: bool) -> io::Result<Held<'_>> {
        let (clock, length_ns) = match &self.short {
            Some(clock) if short => {
                clock.control(ENABLE, 0)?;
                (Clock::Perf(clock), SHORT_NS)
            }
            _ => {
                self.long.set(LONG_NS)?;
                (Clock::Tick(&self.long), LONG_NS)
            }
        };
        Ok(Held { clock, length_ns })
    }
}

/// What cuts a leash to length.
#[derive(Clone, Copy)]
enum Clock<'a> {
    Perf(&'a PerfSignal),
    Tick(&'a CpuTimer),
}

/// While it lives, the leash is held.
pub(super) struct Held<'a> {
    clock: Clock<'a>,
    length_ns: u64,
}

impl Held<'_> {
    /// Twice as long from here on.
    pub(super) fn lengthen(&mut self) {
        if self.length_ns >= LONGEST_NS {
            return;
        }
        self.length_ns *= 2;
        // What could be set once can be set again; if not, a signal too many does no harm.
        let _ = match self.clock {
            Clock::Perf(clock) => clock.set_period(self.length_ns),
            Clock::Tick(timer) => timer.set(self.length_ns),
        };
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // As in `lengthen`.
        let _ = match self.clock {
            Clock::Perf(clock) => clock.control(DISABLE, 0),
            Clock::Tick(timer) => timer.set(0),
        };
        if let Clock::Perf(clock) = self.clock
            && self.length_ns != SHORT_NS
        {
            let _ = clock.set_period(SHORT_NS);
        }
    }
}

/// A periodic timer on the CPU clock of the thread that made it.
pub(super) struct CpuTimer(libc::timer_t);

impl CpuTimer {
    fn new(signo: libc::c_int) -> io::Result<Self> {
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: an all-zero sigevent is valid; the kernel writes the timer's id.
        let made = unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signo;
            event.sigev_notify_thread_id = sys::thread_id();
            libc::timer_create(
                libc::CLOCK_THREAD_CPUTIME_ID,
                &raw mut event,
                &raw mut timer,
            )
        };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(timer))
    }

    /// A signal for each `period_ns` of CPU time from now on; none for 0.
    fn set(&self, period_ns: u64) -> io::Result<()> {
        let period = libc::timespec {
            tv_sec: (period_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (period_ns % 1_000_000_000) as libc::c_long,
        };
        let setting = libc::itimerspec {
            it_interval: period,
            it_value: period,
        };
        // SAFETY: the timer exists as long as `self`; the kernel reads the setting.
        if unsafe { libc::timer_settime(self.0, 0, &raw const setting, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for CpuTimer {
    fn drop(&mut self) {
        // SAFETY: what `new` created, once.
        unsafe { libc::timer_delete(self.0) };
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

    fn is_signalled(short: bool) {
        thread::spawn(move || {
            let leash = Leash::new(signo(), true).expect("leash");
            let _held = leash.hold(short).expect("held");
            while SEEN.get() < 3 {
                std::hint::spin_loop();
            }
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn a_thread_on_a_leash_is_signalled_again_and_again_while_it_works() {
        is_signalled(true);
        is_signalled(false);
    }

    #[test]
    fn a_leash_that_was_lengthened_still_signals_and_is_short_again_the_next_time() {
        thread::spawn(|| {
            let leash = Leash::new(signo(), true).expect("leash");
            let mut held = leash.hold(true).expect("held");
            held.lengthen();
            held.lengthen();
            while SEEN.get() < 3 {
                std::hint::spin_loop();
            }
            let length_ns = held.length_ns;
            drop(held);
            assert_eq!(length_ns, 4 * leash.hold(true).expect("held").length_ns);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn without_perf_events_the_cpu_clock_does_it() {
        thread::spawn(|| {
            let leash = Leash {
                short: None,
                long: CpuTimer::new(signo()).expect("timer"),
            };
            let _held = leash.hold(true).expect("held");
            while SEEN.get() < 3 {
                std::hint::spin_loop();
            }
        })
        .join()
        .expect("thread");
    }
}
