//! How a guest's allowed expiries are divided among its timers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::periodic::SECOND_NS;

/// Expiries a second of one vCPU: `HZ=1000`, and a tenth for errors of measurement.
const PER_VCPU: u32 = 1_100;
/// Up to so many vCPUs each have [`PER_VCPU`].
const FULL_VCPUS: u32 = 10;

/// The rates that the timers of one guest may have.
#[derive(Debug)]
pub struct TimerRates {
    /// The period that KVM uses in place of a shorter one.
    pub(super) shortest: Duration,
    /// Expiries a second that each vCPU may have in any case.
    pub(super) share: u32,
    /// Expiries a second beyond `share`, of all vCPUs together.
    common: u32,
    /// Whether KVM would let the vCPUs have more than that.
    needed: bool,
    common_use: Mutex<CommonUse>,
}

/// How much of the common part the vCPUs use.
#[derive(Debug)]
struct CommonUse {
    /// Expiries a second of each vCPU beyond its share, by index.
    extras: Vec<u32>,
    /// The sum of `extras`.
    sum: u32,
    /// Whether it has been reported to the guest that a timer is slowed down.
    is_reported: bool,
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
            common_use: Mutex::new(CommonUse {
                extras: vec![0; vcpus as usize],
                sum: 0,
                is_reported: false,
            }),
        }
    }

    /// Whether timers have to be checked. They need no check where KVM's own limit is low enough.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.needed
    }

    /// How many times a second the timer of vCPU `index` may expire from now on. `rate` is how many times it
    /// would, 0 if it does not run.
    pub fn allow(&self, index: u32, rate: u32) -> u32 {
        let mut common_use = self.lock();
        let CommonUse { extras, sum, .. } = &mut *common_use;
        let Some(extra) = extras.get_mut(index as usize) else {
            return 0;
        };
        *sum -= *extra;
        let rate = rate.min(PER_VCPU);
        *extra = rate.saturating_sub(self.share).min(self.common - *sum);
        *sum += *extra;
        rate.min(self.share + *extra)
    }

    /// Whether this is the first time that a timer is slowed down, which is reported to the guest.
    pub(super) fn is_first_report(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_reported, true)
    }

    fn lock(&self) -> MutexGuard<'_, CommonUse> {
        self.common_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Expiries a second that the timers of a guest of `vcpus` vCPUs may have together.
#[must_use]
pub fn most(vcpus: u32) -> u32 {
    PER_VCPU * vcpus.min(FULL_VCPUS)
}

/// Expiries a second that KVM would let such a guest have, with no period shorter than `shortest`.
#[must_use]
pub fn possible(vcpus: u32, shortest: Duration) -> u64 {
    let shortest = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX);
    u64::from(vcpus) * (SECOND_NS / shortest.max(1))
}

#[cfg(test)]
mod tests;
