//! The guest's time stamp counter and the host's clocks.

use std::time::Duration;

use baton_os::sys;
use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// IA32_TIME_STAMP_COUNTER.
const MSR_TSC: u32 = 0x10;
/// A guest TSC that is this close to the host's counts as the host's: reading it takes a few microseconds.
const SAME_TSC: Duration = Duration::from_millis(1);

/// Converts between a guest's TSC and host time.
///
/// Conversions start from both clocks as they are at the call, so that a drift between the TSC
/// and `CLOCK_MONOTONIC` (which the host steers) does not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestClock {
    khz: u64,
    /// Guest TSC less host TSC, wrapping.
    offset: u64,
}

impl GuestClock {
    /// A clock of `khz` (at least 1) whose guest TSC is `offset` ahead of the host's.
    #[must_use]
    pub fn new(khz: u32, offset: u64) -> Self {
        Self {
            khz: u64::from(khz.max(1)),
            offset,
        }
    }

    /// Makes the guest TSC of `vcpu` the host's where KVM can (Linux 5.16 and newer), else measures how far
    /// the two are apart.
    ///
    /// # Errors
    /// If KVM does not report the TSC frequency: the host's TSC is unstable.
    pub fn of_vcpu(vcpu: &VcpuFd) -> Result<Self, kvm_ioctls::Error> {
        let khz = vcpu.get_tsc_khz()?;
        let offset = if clear_tsc_offset(vcpu) {
            0
        } else {
            measured_offset(vcpu, khz)
        };
        Ok(Self::new(khz, offset))
    }

    /// Frequency, kHz.
    #[must_use]
    pub fn khz(&self) -> u32 {
        u32::try_from(self.khz).unwrap_or(u32::MAX)
    }

    /// The guest's TSC now.
    #[must_use]
    pub fn guest_tsc(&self) -> u64 {
        sys::rdtsc().wrapping_add(self.offset)
    }

    /// TSC ticks in `ns` nanoseconds.
    #[must_use]
    pub fn ticks(&self, ns: u64) -> u64 {
        u64::try_from(u128::from(ns) * u128::from(self.khz) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// Nanoseconds in `ticks` TSC ticks, rounded up so that a wait never ends early.
    #[must_use]
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        u64::try_from((u128::from(ticks) * 1_000_000).div_ceil(u128::from(self.khz)))
            .unwrap_or(u64::MAX)
    }

    /// Nanoseconds until the guest's TSC reaches `guest_tsc`; 0 if that has passed.
    #[must_use]
    pub fn until(&self, guest_tsc: u64) -> u64 {
        self.nanoseconds(ahead(guest_tsc, self.guest_tsc()))
    }

    /// `CLOCK_MONOTONIC` time, nanoseconds, at which the guest's TSC reaches `guest_tsc`; now if that has
    /// passed.
    #[must_use]
    pub fn monotonic_at(&self, guest_tsc: u64) -> u64 {
        sys::monotonic_ns().saturating_add(self.until(guest_tsc))
    }

    /// `CLOCK_MONOTONIC` time, nanoseconds, at which the guest's TSC was `guest_tsc`; now if that is
    /// still to come.
    #[must_use]
    pub fn monotonic_of(&self, guest_tsc: u64) -> u64 {
        let ago = self.nanoseconds(ahead(self.guest_tsc(), guest_tsc));
        sys::monotonic_ns().saturating_sub(ago)
    }

    /// The guest's TSC at `CLOCK_MONOTONIC` time `ns`; now if that has passed.
    #[must_use]
    pub fn guest_tsc_at(&self, ns: u64) -> u64 {
        let wait = ns.saturating_sub(sys::monotonic_ns());
        self.guest_tsc().saturating_add(self.ticks(wait))
    }
}

/// How far `target` is ahead of `now`; 0 if it is behind. A TSC does not wrap in a machine's life. So a
/// guest that writes nonsense gets the far future or the past, and neither does harm.
fn ahead(target: u64, now: u64) -> u64 {
    target.saturating_sub(now)
}

/// The ioctl by which an attribute of a vCPU is set. kvm-ioctls has it only for other architectures.
mod attr {
    #![allow(missing_docs)]
    vmm_sys_util::ioctl_iow_nr!(
        KVM_SET_DEVICE_ATTR,
        kvm_bindings::KVMIO,
        0xe1,
        kvm_bindings::kvm_device_attr
    );
}

/// Sets the TSC offset of `vcpu` to zero. Returns whether KVM did so.
fn clear_tsc_offset(vcpu: &VcpuFd) -> bool {
    let offset = 0u64;
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: &raw const offset as u64,
    };
    // SAFETY: the attribute is well-formed, and KVM only reads the eight bytes at `addr`.
    unsafe {
        vmm_sys_util::ioctl::ioctl_with_ref(vcpu, attr::KVM_SET_DEVICE_ATTR(), &attribute) == 0
    }
}

/// Guest TSC less host TSC as KVM reports it; 0 if KVM does not.
fn measured_offset(vcpu: &VcpuFd, khz: u32) -> u64 {
    let Ok(mut msrs) = Msrs::from_entries(&[kvm_msr_entry {
        index: MSR_TSC,
        ..Default::default()
    }]) else {
        return 0;
    };
    let before = sys::rdtsc();
    let read = vcpu.get_msrs(&mut msrs);
    let after = sys::rdtsc();
    if !matches!(read, Ok(1)) {
        return 0;
    }
    let host = before + (after - before) / 2;
    let offset = msrs.as_slice()[0].data.wrapping_sub(host);
    let same = GuestClock::new(khz, 0).ticks(SAME_TSC.as_nanos() as u64);
    if offset.min(offset.wrapping_neg()) < same {
        0
    } else {
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanoseconds_agree_and_waits_never_end_early() {
        let clock = GuestClock::new(2_245_780, 0);
        for ns in [0, 1, 999, 1_000_000, 3_600_000_000_000] {
            let ticks = clock.ticks(ns);
            assert!(clock.nanoseconds(ticks) <= ns);
            assert!(clock.ticks(clock.nanoseconds(ticks)) >= ticks.saturating_sub(1));
        }
        assert_eq!(clock.nanoseconds(1), 1);
        assert_eq!(clock.nanoseconds(u64::MAX), 8_213_958_657_441_758_149);
    }

    #[test]
    fn the_past_is_now_and_nonsense_is_far_away() {
        let clock = GuestClock::new(1_000_000, 0);
        assert_eq!(clock.until(0), 0);
        assert_eq!(clock.until(1), 0);
        assert!(clock.until(u64::MAX) > 1_000_000_000_000);
        assert!(clock.monotonic_at(u64::MAX) >= clock.until(u64::MAX));
        let before = sys::monotonic_ns();
        assert!(clock.monotonic_of(u64::MAX) >= before);
        let earlier = clock.monotonic_of(clock.guest_tsc().saturating_sub(50_000_000));
        assert!(earlier < sys::monotonic_ns() - 40_000_000);
    }

    #[test]
    fn offset_is_the_guests_and_not_the_hosts() {
        let host = sys::rdtsc();
        let clock = GuestClock::new(1_000_000, 0u64.wrapping_sub(host));
        assert!(clock.guest_tsc() < host);
    }
}
