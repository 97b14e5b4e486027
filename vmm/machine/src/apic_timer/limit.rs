//! How often the periodic timers of a guest's local APICs may expire.
//!
//! KVM keeps a periodic timer going whatever its vCPU does: while it sleeps, while it waits for its
//! turn, and also if the interrupt is masked. Each expiry interrupts the host CPU where the vCPU last
//! was, and whoever runs there pays for it. KVM bounds the rate of one timer only
//! (`kvm.min_timer_period_us`, 200 us by default, so 5,000 a second), and a guest has a timer for each
//! of up to 254 vCPUs.
//!
//! # How many
//! An expiry was measured to cost 5 to 12 us where the host is itself a guest and nothing else expires
//! at that moment (two timers of 5,000 a second took 5 to 13 % of their host CPU, 64 of them up to
//! 90 %). So the limit cannot be far above what a kernel needs: that is 1,000 a second on each vCPU, by
//! a Linux with `HZ=1000` that has neither a TSC deadline timer nor high resolution timers. A tenth is
//! added because kernels measure the clock of the timer before they use it. Of a guest with more than
//! ten vCPUs the timers together have as many as ten vCPUs: half of them in equal shares, so that no
//! vCPU goes without, and half for those who come first.
//!
//! A periodic timer whose interrupt is masked tells nobody of its expiries: all that a vCPU can do with
//! it is read its count. It is slowed down to `PER_MASKED`, far below the limit, and only the limit
//! itself ends a guest.
//!
//! One-shot and deadline timers need no limit: each expiry takes a vCPU that has run and has been
//! charged for it.
//!
//! # How a timer is slowed down
//! A longer initial count is written by `KVM_SET_MSRS` to the register's MSR. KVM takes that as a write
//! by the vCPU itself, which touches nothing but the timer, and takes it in x2APIC mode only.
//! `KVM_SET_LAPIC`, the other way, replaces all registers: an interrupt that arrives after they were
//! read would be lost, and KVM does not tell whether one did. So a guest whose local APICs are in xAPIC
//! mode and whose timers go beyond the limit is ended. (Linux, arch/x86/kvm/lapic.c:
//! `kvm_apic_set_state`, `kvm_x2apic_msr_write`.)

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kvm_bindings::{Msrs, kvm_lapic_state, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// Expiries a second of one vCPU: `HZ=1000`, and a tenth for what was measured wrong.
const PER_VCPU: u32 = 1_100;
/// Expiries a second of a masked one: each period is a thousand times what a kernel needs to measure the
/// timer's clock.
const PER_MASKED: u32 = 10;
/// So many vCPUs have all of that.
const FULL_VCPUS: u32 = 10;

// Local APIC registers, as offsets into its page.
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const DIVIDE: usize = 0x3e0;
/// [`LVT_TIMER`]: the timer's mode, and its value for a periodic timer.
const MODE: u32 = 3 << 17;
const MODE_PERIODIC: u32 = 1 << 17;
/// [`LVT_TIMER`]: no interrupts.
const MASKED: u32 = 1 << 16;
/// IA32_X2APIC_INIT_COUNT.
const MSR_INITIAL_COUNT: u32 = 0x838;

const SECOND_NS: u64 = 1_000_000_000;

/// A periodic timer that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodicTimer {
    /// Initial count.
    count: u32,
    /// Nanoseconds of a count: KVM's timers have a clock of 1 GHz, of which this is the divisor.
    divisor: u32,
    /// Its interrupt is.
    masked: bool,
}

impl PeriodicTimer {
    /// The timer of a local APIC in this state, if it is periodic and runs.
    #[must_use]
    pub fn of(state: &kvm_lapic_state) -> Option<Self> {
        let count = register(state, INITIAL_COUNT);
        let lvt = register(state, LVT_TIMER);
        let periodic = lvt & MODE == MODE_PERIODIC;
        (periodic && count != 0).then(|| {
            let divide = register(state, DIVIDE);
            // Bits 0, 1 and 3: 2, 4 and so on to 128, then 1.
            let power = (divide & 3 | divide >> 1 & 4) + 1;
            Self {
                count,
                divisor: 1 << (power & 7),
                masked: lvt & MASKED != 0,
            }
        })
    }

    /// Expiries a second; KVM makes no period shorter than `shortest`.
    #[must_use]
    pub fn rate(self, shortest: Duration) -> u32 {
        let period = u64::from(self.count) * u64::from(self.divisor);
        let shortest = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX);
        u32::try_from(SECOND_NS / period.max(shortest)).unwrap_or(u32::MAX)
    }

    /// The initial count with which it expires at most `rate` times a second.
    #[must_use]
    pub fn count_for(self, rate: u32) -> u32 {
        let period = SECOND_NS.div_ceil(u64::from(rate.max(1)));
        u32::try_from(period.div_ceil(u64::from(self.divisor))).unwrap_or(u32::MAX)
    }
}

fn register(state: &kvm_lapic_state, at: usize) -> u32 {
    let byte = |n: usize| state.regs[at + n] as u8;
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

/// What the timers of one guest may have.
#[derive(Debug)]
pub struct TimerRates {
    /// What KVM makes of a shorter period.
    shortest: Duration,
    /// Expiries a second that each vCPU has in any case.
    share: u32,
    /// Expiries a second beyond that, of all vCPUs together.
    common: u32,
    /// Whether the vCPUs could have more than that.
    needed: bool,
    given: Mutex<Given>,
}

/// What the vCPUs have of the common part.
#[derive(Debug)]
struct Given {
    /// By index.
    extras: Vec<u32>,
    sum: u32,
    /// The guest has been told.
    told: bool,
}

impl TimerRates {
    /// For a guest of `vcpus` vCPUs (at least 1) on a host where KVM makes no period shorter than
    /// `shortest`.
    #[must_use]
    pub fn new(vcpus: u32, shortest: Duration) -> Self {
        let vcpus = vcpus.max(1);
        let all = most(vcpus);
        let share = match vcpus <= FULL_VCPUS {
            true => PER_VCPU,
            false => all / 2 / vcpus,
        };
        Self {
            shortest,
            share,
            common: all - share * vcpus,
            needed: possible(vcpus, shortest) > u64::from(all),
            given: Mutex::new(Given {
                extras: vec![0; vcpus as usize],
                sum: 0,
                told: false,
            }),
        }
    }

    /// Whether timers have to be looked at: not where KVM's own limit is low enough.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.needed
    }

    /// How often a second the timer of vCPU `index` may expire, of `wanted` times that it would, 0 if
    /// it does not run. This much is its from here on.
    pub fn allow(&self, index: u32, wanted: u32) -> u32 {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let Given { extras, sum, .. } = &mut *given;
        let Some(extra) = extras.get_mut(index as usize) else {
            return 0;
        };
        *sum -= *extra;
        let wanted = wanted.min(PER_VCPU);
        *extra = wanted.saturating_sub(self.share).min(self.common - *sum);
        *sum += *extra;
        wanted.min(self.share + *extra)
    }

    /// Whether the guest is to be told now: once.
    fn is_news(&self) -> bool {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut given.told, true)
    }
}

/// Expiries a second that a guest of `vcpus` vCPUs may have.
#[must_use]
pub fn most(vcpus: u32) -> u32 {
    PER_VCPU * vcpus.min(FULL_VCPUS)
}

/// Expiries a second that KVM would let it have, with no period shorter than `shortest`.
#[must_use]
pub fn possible(vcpus: u32, shortest: Duration) -> u64 {
    let shortest = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX);
    u64::from(vcpus) * (SECOND_NS / shortest.max(1))
}

/// A timer that expired too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum TooFast {
    /// It has been slowed down, which the guest has not been told of yet.
    Slowed {
        /// Expiries a second before.
        from: u32,
        /// Expiries a second now.
        to: u32,
    },
    /// It goes on.
    Unstoppable {
        /// Expiries a second.
        rate: u32,
        /// Those that it may have.
        allowed: u32,
    },
}

/// Looks at the timer of vCPU `index`, which does not run, and slows it down if it expires too often.
/// `None`: nothing to say. Costs an ioctl where [`TimerRates::is_needed`], and a second one if it has to
/// act.
pub(crate) fn limit(fd: &VcpuFd, index: u32, rates: &TimerRates) -> Option<TooFast> {
    if !rates.is_needed() {
        return None;
    }
    // KVM always tells; if it did not, there would be nothing to act on.
    let timer = fd.get_lapic().ok().as_ref().and_then(PeriodicTimer::of);
    let rate = timer.map_or(0, |timer| timer.rate(rates.shortest));
    let allowed = rates.allow(index, rate);
    let timer = timer?;
    let wanted = if timer.masked {
        allowed.min(PER_MASKED)
    } else {
        allowed
    };
    if rate <= wanted {
        return None;
    }
    if !set_initial_count(fd, timer.count_for(wanted)) {
        return (rate > allowed).then_some(TooFast::Unstoppable { rate, allowed });
    }
    rates.is_news().then_some(TooFast::Slowed {
        from: rate,
        to: wanted,
    })
}

/// Whether KVM took the count: it does in x2APIC mode.
fn set_initial_count(fd: &VcpuFd, count: u32) -> bool {
    let entry = kvm_msr_entry {
        index: MSR_INITIAL_COUNT,
        data: count.into(),
        ..Default::default()
    };
    Msrs::from_entries(&[entry]).is_ok_and(|msrs| matches!(fd.set_msrs(&msrs), Ok(1)))
}

#[cfg(test)]
mod tests;
