//! The periodic timer of a local APIC, as its registers describe it.

use std::time::Duration;

use kvm_bindings::kvm_lapic_state;

// Local APIC registers, as offsets into its page.
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const DIVIDE: usize = 0x3e0;
/// [`LVT_TIMER`]: the timer's mode, and its value for a periodic timer.
const MODE: u32 = 3 << 17;
const MODE_PERIODIC: u32 = 1 << 17;
/// [`LVT_TIMER`]: no interrupts.
const MASKED: u32 = 1 << 16;

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// A periodic timer that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodicTimer {
    /// Initial count.
    pub(super) count: u32,
    /// Nanoseconds of a count: KVM's timers have a clock of 1 GHz, and this divides it.
    divisor: u32,
    /// Whether the timer's interrupt is masked.
    pub(super) masked: bool,
}

impl PeriodicTimer {
    /// The timer of a local APIC in this state, if the timer is periodic and runs.
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

    /// The initial count with which the timer expires at most `rate` times a second.
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

#[cfg(test)]
mod tests;
