//! Where the count of one vCPU is.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The address of a count is found anew after this time, ns: the guest may have moved it.
const RENEW_NS: u64 = 50_000_000;
/// Linux keeps in the topmost bit whether a task switch is due, so it does not count.
const COUNT_BITS: u32 = 0x7fff_ffff;

/// The checked address of one vCPU's count in the host's memory. Only the owner of the vCPU uses it.
#[derive(Debug, Default)]
pub(super) struct CountPlace {
    count: AtomicPtr<u32>,
    renew_at: AtomicU64,
}

impl CountPlace {
    /// Whether it is time to find the count again, `now`, ns.
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.renew_at.load(Ordering::Relaxed)
    }

    /// Takes the count at the virtual address `address`, if KVM translates that with `translate` to an
    /// aligned address in `memory`. Otherwise the place stays, and is due.
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

    /// The count now; 0 if it has not been found.
    pub(super) fn read(&self) -> u32 {
        let count = self.count.load(Ordering::Relaxed);
        if count.is_null() {
            return 0;
        }
        // SAFETY: `renew` has checked that the aligned word lies in guest memory, which outlives this value.
        // The guest may write at any time; this process reads the word only atomically.
        unsafe { AtomicU32::from_ptr(count) }.load(Ordering::Acquire) & COUNT_BITS
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

    /// Memory whose words are their own addresses, shifted so that none has the topmost bit set.
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
            assert_eq!(place.read(), address as u32 + 7);
        }
    }

    #[test]
    fn a_wild_address_leaves_the_place_as_it_was() {
        let (memory, place) = (memory(), CountPlace::default());
        for wild in [MEMORY, 1 << 40, u64::MAX, u64::MAX - 3, 0x1001, 0x1002] {
            place.renew(wild, Some, memory.regions(), 0);
            assert_eq!(place.read(), 0, "{wild:#x} is not taken");
            assert!(place.is_due(0));
        }
        place.renew(0x1000, Some, memory.regions(), 0);
        for wild in [MEMORY, u64::MAX - 3, 0x1001] {
            place.renew(wild, Some, memory.regions(), 9);
            assert_eq!(place.read(), 0x1007);
        }
    }

    #[test]
    fn what_kvm_translates_to_is_checked_too() {
        let (memory, place) = (memory(), CountPlace::default());
        for physical in [None, Some(MEMORY), Some(u64::MAX), Some(0x1002)] {
            place.renew(0x1000, |_| physical, memory.regions(), 0);
            assert_eq!(place.read(), 0);
        }
    }

    #[test]
    fn the_bit_for_a_due_task_switch_is_no_count() {
        let (memory, place) = (memory(), CountPlace::default());
        let regions = memory.regions();
        place.renew(0x2000, Some, regions, 0);
        for (word, count) in [(0x8000_0000u32, 0), (0x8000_0002, 2), (1, 1)] {
            regions
                .write_obj(word, GuestAddress(0x2000))
                .expect("in RAM");
            assert_eq!(place.read(), count);
        }
    }

    #[test]
    fn a_place_is_due_again_after_a_while() {
        let (memory, place) = (memory(), CountPlace::default());
        place.renew(0x1000, Some, memory.regions(), 100);
        assert!(!place.is_due(100 + RENEW_NS - 1));
        assert!(place.is_due(100 + RENEW_NS));
    }
}
