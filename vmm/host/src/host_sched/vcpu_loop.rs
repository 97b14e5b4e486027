//! What a vCPU's thread does.

use std::time::Duration;

use baton_machine::{Doorbell, Exit, Guest, Vcpu};
use baton_os::sys;
use vcpu_sched::Counters;

use super::vcpu_control::VcpuControl;
use crate::report::VcpuAccount;

/// Runs a vCPU on the calling thread until its guest ends or it is stopped. `controls` are those of all
/// vCPUs of the guest. Returns what was counted.
pub(super) fn run_vcpu(mut vcpu: Box<Vcpu>, controls: &[VcpuControl]) -> VcpuAccount {
    let before = sys::thread_schedstat();
    run_until_stopped(&mut vcpu, controls);
    let after = sys::thread_schedstat();
    let ran_ns = after.ran_ns.saturating_sub(before.ran_ns);
    VcpuAccount {
        counters: Counters {
            runtime_ns: ran_ns,
            charged_ns: ran_ns,
            waited_ns: after.waited_ns.saturating_sub(before.waited_ns),
            switches: after.switches.saturating_sub(before.switches),
            ..Counters::default()
        },
        exits: vcpu.exits,
    }
}

/// Runs a vCPU on the calling thread until its guest ends or it is stopped. `controls` are those of all
/// vCPUs of the guest.
pub(crate) fn run_until_stopped(vcpu: &mut Vcpu, controls: &[VcpuControl]) {
    let control = &controls[vcpu.index as usize];
    let stop = &control.stop_request;
    stop.begin(sys::thread_id());
    let immediate_exit = vcpu.immediate_exit();
    while !stop.is_requested() {
        let entered = sys::coarse_monotonic_ns();
        match vcpu.run() {
            Exit::Handled | Exit::Debug => {}
            Exit::Interrupted => {
                stop.clear_immediate_exit(&immediate_exit);
                // If this is not a stop, the whole process was stopped. Before that the vCPU may have run
                // or slept in KVM; then the guest is notified of a gap without need. What the host's scheduler
                // takes ends no `KVM_RUN`, and stays between KVM and the guest.
                vcpu.missed(sys::coarse_monotonic_ns().saturating_sub(entered));
            }
            Exit::Doorbell(Doorbell::Idle) => idle(vcpu, control),
            // Halts exit only without KVM's interrupt controller. Nothing but the guest's own doorbell
            // could end this one.
            Exit::Halted => idle(vcpu, control),
            Exit::Doorbell(Doorbell::Wake { target }) => controls[target as usize].idle.wake(),
            // The host kernel takes no hints.
            Exit::Doorbell(Doorbell::Wait | Doorbell::Release { .. }) => {}
            Exit::Ended => break,
        }
    }
    stop.end();
}

/// Waits for a wake of an idle vCPU, at most until the time that its guest has set.
fn idle(vcpu: &mut Vcpu, control: &VcpuControl) {
    let limit = idle_limit(&vcpu.guest, vcpu.index);
    let wait_ns = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    let until = wait_ns.map(|wait| sys::coarse_monotonic_ns().saturating_add(wait));
    vcpu.gaps.idles(until);
    control.idle.wait(limit);
}

/// How long an idle vCPU sleeps if no sibling wakes it; `None`: for ever.
fn idle_limit(guest: &Guest, index: u32) -> Option<Duration> {
    match guest.hints.idle_until_tsc(index) {
        0 => None,
        tsc => Some(Duration::from_nanos(guest.clock.until(tsc))),
    }
}
