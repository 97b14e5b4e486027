//! Exit on wake by tracepoints: `KVM_RUN` ends when its vCPU wakes, before the guest runs.
//!
//! The thread on which the vCPU sleeps has a perf event on the tracepoint `kvm_vcpu_wakeup`, which KVM
//! passes when a halt is over. The event sends that thread `SIGTRAP`, and KVM checks for signals before it
//! enters the guest: `KVM_RUN` returns `EINTR`, the guest has executed nothing, and the interrupt is pending
//! in the local APIC. No debug flag is set, so the guest cannot detect this, and no instruction of the guest
//! can prevent the exit.
//!
//! # Protocol
//! 1. The thread switches the events on. They only fire inside of `KVM_RUN`, so nothing is signalled yet.
//! 2. The thread reads the local APIC (`pending.rs`). An interrupt that is pending already has woken the
//!    vCPU, and the thread goes to step 6.
//! 3. `KVM_RUN` finds the vCPU halted and nothing pending: it sleeps.
//! 4. An interrupt wakes the thread. KVM passes `kvm_vcpu_wakeup`, after it has stopped sleeping and
//!    before it makes the vCPU runnable. The perf event leaves the signal as work for the thread, to be
//!    done before the thread leaves the kernel or enters a guest.
//! 5. KVM makes the vCPU runnable, checks for such work, sees the signal, and returns. The vCPU has
//!    executed nothing.
//! 6. The thread switches the events off.
//!
//! # Races
//! * *An interrupt between steps 2 and 3*, or an NMI, for which step 2 does not check. KVM does not sleep
//!   then, so it does not pass `kvm_vcpu_wakeup`, and it enters the guest. So there is a second event, on
//!   `kvm_entry`, which KVM passes at each entry with interrupts off, right before the processor goes to
//!   the guest. Work that is left there would be done at the next exit only. So this event raises an
//!   interrupt of this host CPU. The interrupt is pending at the entry and takes the vCPU out again before
//!   it executes anything; its handler signals the thread. The guest's interrupt has either been delivered,
//!   and the vCPU is at its handler, or KVM keeps it for the next entry.
//! * *The local APIC's timer.* KVM ends the sleep for a timer that expired, sees the signal, and returns,
//!   with the vCPU still halted and the timer's interrupt pending. So a vCPU that comes out of
//!   step 5 halted, though its sleep was not interrupted, counts as woken. If it had not woken after all, it
//!   halts again when the policy runs it, on its own time.
//! * *A vCPU that waits to be started* sleeps in another way, which passes no tracepoint. `KVM_RUN`
//!   ends at INIT by itself, and after the start-up message `kvm_entry` ends it.
//! * *An interruption of the sleep.* Its signal ends the sleep too, and `kvm_vcpu_wakeup` signals a second
//!   time. Both signals end the same `KVM_RUN`.
//! * *The host preempts the thread* anywhere: events of a thread go on and off the CPU with it, and
//!   what they have raised is handled before.
//!
//! The events have no limit (`PERF_EVENT_IOC_REFRESH`): on Linux 6.18 a tracepoint's event that came to
//! its limit does not start again. With a period of 1 they are not throttled.
//!
//! Measured, interrupt to end of the sleep (Linux 6.18, KVM-PVM, a host that is itself a guest): 31 us, by
//! debug flags 28, and 43 if `kvm_vcpu_wakeup` raised an interrupt for its signal too.
//!
//! KVM-PVM does not pass `kvm_entry`. There one more event is on `kvm_emulate_insn`: what follows HLT is
//! kernel code, all of which is emulated, and the vCPU stops after the first instruction.
//!
//! The runaway guard (`runaway_guard.rs`) is active all the same, for cases that are not known yet.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use baton_os::signals::RtSignal;
use perf_event_open_sys::bindings::{DISABLE, ENABLE};
use thiserror::Error;

use super::error::HaltSignalError;
use super::interrupt_sleep;
use super::perf_signal::{Counted, PerfSignal};
use super::tracepoints;

/// KVM passes it when a halt is over.
const WAKEUP: &str = "kvm_vcpu_wakeup";
/// KVM passes it at each entry to the guest.
const ENTRY: &str = "kvm_entry";
/// KVM passes it for each instruction that it executes for the guest.
const EMULATE: &str = "kvm_emulate_insn";

/// Tracepoints cannot make wakes exits on this host.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WakeEventsError {
    /// This user may not read the tracepoints' numbers.
    #[error(
        "the tracepoints of KVM cannot be read ({0}), so a halted vCPU that wakes executes one \
         instruction under debug flags: run baton as root, or let it read them (sudo mount -o \
         remount,gid=GROUP,mode=750 /sys/kernel/tracing, with a group of this user's)"
    )]
    Unreadable(String),
    /// KVM on this host does not have one of the tracepoints.
    #[error(
        "this host's kernel lacks the tracepoint {0} of KVM, so a halted vCPU that wakes executes \
         one instruction under debug flags: use a kernel with CONFIG_EVENT_TRACING"
    )]
    Unsupported(&'static str),
    /// This user may not open perf events.
    #[error(
        "perf events are not permitted (see exit on halt), so a halted vCPU that wakes executes one \
         instruction under debug flags"
    )]
    NotPermitted,
    /// A perf event on a tracepoint could not be set up.
    #[error(
        "perf events on KVM's tracepoints cannot be set up ({0}), so a halted vCPU that wakes \
         executes one instruction under debug flags"
    )]
    Perf(String),
}

/// Signals the thread that made it when a vCPU wakes that the thread runs; to be used and dropped there.
#[derive(Debug)]
pub(super) struct WakeEvents {
    /// On [`WAKEUP`]; the others are on whenever this one is.
    leader: PerfSignal,
    /// For a vCPU that has woken before it sleeps.
    _followers: Vec<PerfSignal>,
}

impl WakeEvents {
    /// Creates the events of the calling thread, switched off.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(super) fn of_this_thread() -> Result<Self, WakeEventsError> {
        let perf = |error| match error {
            HaltSignalError::NotPermitted { .. } => WakeEventsError::NotPermitted,
            HaltSignalError::Host { what, source } => {
                WakeEventsError::Perf(format!("{what}: {source}"))
            }
            error => WakeEventsError::Perf(error.to_string()),
        };
        let (wakeup, others) = numbers()?;
        let leader = PerfSignal::trap(Counted::Tracepoint(*wakeup)).map_err(perf)?;
        let others = others.iter().map(|&number| {
            let counted = Counted::Tracepoint(number);
            let signo = RtSignal::SleepInterrupt.number();
            PerfSignal::open(counted, 1, signo, Some(&leader)).map_err(perf)
        });
        Ok(Self {
            _followers: others.collect::<Result<_, _>>()?,
            leader,
        })
    }

    /// Step 1. Costs about 2 us, as does [`WakeEvents::off`].
    ///
    /// # Errors
    /// If the kernel refuses, as it never does for events of a living thread.
    pub(super) fn on(&self) -> io::Result<()> {
        self.leader.control(ENABLE, 0)
    }

    /// Step 6.
    ///
    /// # Errors
    /// As [`WakeEvents::on`].
    pub(super) fn off(&self) -> io::Result<()> {
        self.leader.control(DISABLE, 0)
    }
}

/// Reads the numbers of the tracepoints, while this process can read them. Whoever needs them later gets the same
/// answer.
pub fn read_tracepoints() {
    // An error is kept, too.
    let _ = numbers();
}

/// Checks that tracepoints can make wakes exits on the threads of this program.
///
/// # Errors
/// What is missing, and how to get it.
pub fn check_wake_events() -> Result<(), WakeEventsError> {
    interrupt_sleep::install_signals().map_err(|error| WakeEventsError::Perf(error.to_string()))?;
    // The events belong to a thread, and go when it ends.
    std::thread::scope(|scope| {
        let made = scope.spawn(|| WakeEvents::of_this_thread().map(drop));
        made.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The numbers of the tracepoints: of [`WAKEUP`], and of the others.
type Numbers = (u64, Vec<u64>);

fn numbers() -> Result<&'static Numbers, WakeEventsError> {
    static NUMBERS: OnceLock<Result<Numbers, WakeEventsError>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        let mut others = vec![number(ENTRY)?];
        if Path::new("/sys/module/kvm_pvm").exists() {
            others.push(number(EMULATE)?);
        }
        Ok((number(WAKEUP)?, others))
    });
    numbers.as_ref().map_err(Clone::clone)
}

fn number(name: &'static str) -> Result<u64, WakeEventsError> {
    tracepoints::number(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => WakeEventsError::Unsupported(name),
        _ if error.raw_os_error() == Some(libc::ENODEV) => WakeEventsError::Unsupported(name),
        _ => WakeEventsError::Unreadable(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_consequence_and_the_remedy() {
        let unreadable = WakeEventsError::Unreadable("Permission denied".to_owned()).to_string();
        for part in ["one instruction", "as root", "/sys/kernel/tracing"] {
            assert!(unreadable.contains(part), "{unreadable}");
        }
        let unsupported = WakeEventsError::Unsupported(WAKEUP).to_string();
        assert!(
            unsupported.contains("CONFIG_EVENT_TRACING"),
            "{unsupported}"
        );
    }

    #[test]
    fn a_tracepoint_that_kvm_does_not_have_is_an_error() {
        assert!(matches!(
            number("kvm_no_such_thing"),
            Err(WakeEventsError::Unsupported(_) | WakeEventsError::Unreadable(_))
        ));
    }
}
