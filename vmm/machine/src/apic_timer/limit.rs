//! Slowing a timer down.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::periodic::PeriodicTimer;
use super::rates::TimerRates;

/// Expiries a second of a masked timer: each period is a thousand times what a kernel needs to measure the
/// timer's clock.
const PER_MASKED: u32 = 10;
/// IA32_X2APIC_INIT_COUNT.
const MSR_INITIAL_COUNT: u32 = 0x838;

/// A timer that expired too often, and that is to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum TooFast {
    /// The timer has been slowed down, the first one of the guest.
    Slowed {
        /// Expiries a second before.
        from: u32,
        /// Expiries a second now.
        to: u32,
    },
    /// KVM does not slow the timer down, and the timer exceeds the limit.
    Unstoppable {
        /// Expiries a second.
        rate: u32,
        /// Expiries a second that it may have.
        allowed: u32,
    },
}

/// Checks the timer of vCPU `index`, which does not run, and slows the timer down if it expires too often.
/// `None`: there is nothing to report. Costs an ioctl where [`TimerRates::is_needed`], and a second one to
/// slow the timer down.
pub(crate) fn limit(fd: &VcpuFd, index: u32, rates: &TimerRates) -> Option<TooFast> {
    if !rates.is_needed() {
        return None;
    }
    // KVM always reports the state. If it did not, there would be no timer to slow down.
    let timer = fd.get_lapic().ok().as_ref().and_then(PeriodicTimer::of);
    let rate = timer.map_or(0, |timer| timer.rate(rates.shortest));
    let allowed = rates.allow(index, rate);
    let timer = timer?;
    let target = if timer.masked {
        allowed.min(PER_MASKED)
    } else {
        allowed
    };
    if rate <= target {
        return None;
    }
    if !set_initial_count(fd, timer.count_for(target)) {
        return (rate > allowed).then_some(TooFast::Unstoppable { rate, allowed });
    }
    rates.is_first_report().then_some(TooFast::Slowed {
        from: rate,
        to: target,
    })
}

/// Sets the initial count. Returns whether KVM accepts it, as it does in x2APIC mode.
fn set_initial_count(fd: &VcpuFd, count: u32) -> bool {
    let entry = kvm_msr_entry {
        index: MSR_INITIAL_COUNT,
        data: count.into(),
        ..Default::default()
    };
    Msrs::from_entries(&[entry]).is_ok_and(|msrs| matches!(fd.set_msrs(&msrs), Ok(1)))
}
