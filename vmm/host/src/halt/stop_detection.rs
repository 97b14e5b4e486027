//! Detects that the process was stopped while a halted vCPU slept.
//!
//! A halted vCPU may sleep for any length of time, so a long sleep alone shows nothing. But to stop a thread
//! (SIGSTOP, a debugger), the kernel wakes it, and the thread then sleeps a second time, in its stop. Both
//! sleeps are voluntary context switches.

use baton_machine::guest_stopped::is_long;
use baton_machine::{Exit, Vcpu};
use baton_os::sys;

/// Lets the halted `vcpu` sleep on this thread. If the process was stopped meanwhile and the sleep was
/// long, the guest is notified. Now and then a thread sleeps twice for another reason, and the guest is
/// notified without need.
pub(super) fn run_and_detect_stop(vcpu: &mut Vcpu) -> Exit {
    let from = sys::coarse_monotonic_ns();
    let switches = sys::context_switches().voluntary;
    let exit = vcpu.run();
    let took = sys::coarse_monotonic_ns().saturating_sub(from);
    if exit == Exit::Interrupted
        && is_long(took)
        && sys::context_switches().voluntary.wrapping_sub(switches) >= 2
    {
        vcpu.missed(took);
    }
    exit
}
