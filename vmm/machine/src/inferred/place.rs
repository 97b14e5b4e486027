//! Where the count of one vCPU is.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The address of a count is found anew after this time, ns: the guest may have moved it.
const RENEW_NS: u64 = 50_000_000;
/// If it cannot be found, that is tried again after this time, ns. In user mode GS is not the kernel's.
const RETRY_NS: u64 = 1_000_000;

/// The checked address of one vCPU's count in the host's memory. Only the owner of the vCPU uses it.
#[derive(Debug, Default)]
pub(super) struct CountPlace {
    count: AtomicPtr<u32>,
    renew_at: AtomicU64,
    /// The number of the finding for which this is the place.
    finding: AtomicU32,
}

impl CountPlace {
    /// Forgets the place if it is not of the finding with this number.
    pub(super) fn belong_to(&self, finding: u32) {
        if self.finding.swap(finding, Ordering::Relaxed) != finding {
            self.count.store(ptr::null_mut(), Ordering::Relaxed);
            self.renew_at.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it is time to find the count again, `now`, ns. If it is, it is not for a short time from then
    /// on, whether the count is found or not.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let is_due = now >= self.renew_at.load(Ordering::Relaxed);
        if is_due {
            let retry_at = now.saturating_add(RETRY_NS);
            self.renew_at.store(retry_at, Ordering::Relaxed);
        }
        is_due
    }

    /// Takes the count at the virtual address `address`, if KVM translates that with `translate` to an
    /// aligned address in `memory`. Otherwise the place stays.
    ///
    /// `memory` must be the memory of the guest to which this value belongs: the mappings outlive the
    /// address that is kept here.
    pub(super) fn renew(
        &self,
        address: u64,
        translate: impl FnOnce(u64) -> Option<u64>,
        memory: &GuestMemoryMmap,
        now: u64,
    ) {
        let host = Some(address)
            .filter(|address| address.is_multiple_of(align_of::<u32>() as u64))
            .and_then(translate)
            .and_then(|physical| checked(physical, memory));
        if let Some(host) = host {
            self.count.store(host, Ordering::Relaxed);
            self.renew_at
                .store(now.saturating_add(RENEW_NS), Ordering::Relaxed);
        }
    }

    /// The word of the count now; `None` if it has not been found.
    pub(super) fn read(&self) -> Option<u32> {
        let count = self.count.load(Ordering::Relaxed);
        if count.is_null() {
            return None;
        }
        // SAFETY: `renew` has checked that the aligned word lies in guest memory, which outlives this value.
        // The guest may write at any time; this process reads the word only atomically.
        Some(unsafe { AtomicU32::from_ptr(count) }.load(Ordering::Acquire))
    }
}

/// The host's address of the aligned word at the guest's `physical` address, if it is in `memory`.
fn checked(physical: u64, memory: &GuestMemoryMmap) -> Option<*mut u32> {
    let word = GuestAddress(physical);
    // Regions are whole pages, so an aligned word that starts in one lies in it.
    let is_aligned = physical.is_multiple_of(align_of::<u32>() as u64);
    let host = memory.get_host_address(word).ok().filter(|_| is_aligned)?;
    Some(host.cast())
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;
    use crate::memory::GuestMemory;

    const MEMORY: u64 = 4 << 20;

    /// Memory whose words are their own addresses and a little more.
    fn memory() -> GuestMemory {
        let memory = GuestMemory::new(MEMORY).expect("memory");
        for address in [0, 0x1000, MEMORY - 4] {
            let value = address as u32 + 7;
            let written = memory.regions().write_obj(value, GuestAddress(address));
            written.expect("in RAM");
        }
        memory
    }

    #[test]
    fn a_count_in_ram_is_read_where_it_is() {
        let (memory, place) = (memory(), CountPlace::default());
        for address in [0, 0x1000, MEMORY - 4] {
            place.renew(address, Some, memory.regions(), 0);
            assert_eq!(place.read(), Some(address as u32 + 7));
        }
    }

    #[test]
    fn a_wild_address_leaves_the_place_as_it_was() {
        let (memory, place) = (memory(), CountPlace::default());
        for wild in [MEMORY, 1 << 40, u64::MAX, u64::MAX - 3, 0x1001, 0x1002] {
            place.renew(wild, Some, memory.regions(), 0);
            assert_eq!(place.read(), None, "{wild:#x} is not taken");
        }
        place.renew(0x1000, Some, memory.regions(), 0);
        for wild in [MEMORY, u64::MAX - 3, 0x1001] {
            place.renew(wild, Some, memory.regions(), 9);
            assert_eq!(place.read(), Some(0x1007));
        }
    }

    #[test]
    fn what_kvm_translates_to_is_checked_too() {
        let (memory, place) = (memory(), CountPlace::default());
        for physical in [None, Some(MEMORY), Some(u64::MAX), Some(0x1002)] {
            place.renew(0x1000, |_| physical, memory.regions(), 0);
            assert_eq!(place.read(), None);
        }
    }

    #[test]
    fn a_place_is_due_again_after_a_while() {
        let (memory, place) = (memory(), CountPlace::default());
        place.renew(0x1000, Some, memory.regions(), 100);
        assert!(!place.is_due(100 + RENEW_NS - 1));
        assert!(place.is_due(100 + RENEW_NS));
    }

    #[test]
    fn a_count_that_is_not_found_is_not_looked_for_at_each_stop() {
        let place = CountPlace::default();
        assert!(place.is_due(100));
        assert!(!place.is_due(100 + RETRY_NS - 1));
        assert!(place.is_due(100 + RETRY_NS));
    }

    #[test]
    fn a_place_is_forgotten_with_its_finding() {
        let (memory, place) = (memory(), CountPlace::default());
        place.belong_to(1);
        place.renew(0x1000, Some, memory.regions(), 100);
        place.belong_to(1);
        assert_eq!(place.read(), Some(0x1007));
        place.belong_to(2);
        assert_eq!(place.read(), None);
        assert!(place.is_due(100));
    }
}
