//! Sleeping in `KVM_RUN`, and whether the process was stopped meanwhile.
//!
//! A halted vCPU may sleep for as long as it likes, so the time tells nothing. But a thread that is
//! stopped (SIGSTOP, a debugger) is woken for it, and then sleeps a second time, in its stop. Both are
//! voluntary context switches.

use std::mem;

use baton_machine::guest_stopped::is_long;
use baton_machine::{Exit, Vcpu};
use baton_os::sys;

/// Has the halted `vcpu` sleep on this thread. Its guest is told if the process was stopped meanwhile, and
/// the sleep was long. Now and then a thread sleeps twice for another reason; then the guest is told for
/// nothing.
pub(super) fn run(vcpu: &mut Vcpu) -> Exit {
    let from = sys::coarse_monotonic_ns();
    let switches = voluntary_switches();
    let exit = vcpu.run();
    let took = sys::coarse_monotonic_ns().saturating_sub(from);
    if exit == Exit::Interrupted
        && is_long(took)
        && voluntary_switches().wrapping_sub(switches) >= 2
    {
        vcpu.missed(took);
    }
    exit
}

/// How often the calling thread has gone to sleep.
fn voluntary_switches() -> u64 {
    // SAFETY: plain integers; getrusage fills them and cannot fail for the calling thread.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    usage.ru_nvcsw as u64
}
