//! The hint pages of a guest.

use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering, fence};

use baton_abi::hints::{
    HELD_DEPTH_BITS, HintPage, RING_DEFER, RING_DONATED, WAIT_BLOCK, WAIT_IPI, WAIT_NONE, WAIT_SPIN,
};
use baton_os::nospec;
use vcpu_sched::WaitKind;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::mapped_page::MappedPage;
use super::snapshot::{HintSnapshot, PublishedWait};

/// Bytes of a page, which a hint page has to itself.
const PAGE: u64 = 4096;
const _: () = assert!(size_of::<HintPage>() <= PAGE as usize);

/// A hint page was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHintPage {
    /// There is no such vCPU.
    NoSuchVcpu,
    /// The page is not in RAM.
    NotInRam,
}

/// The hint pages of one guest, by vCPU index.
///
/// The value lives inside the guest beside the guest's memory, and is dropped before the memory.
#[derive(Debug)]
pub struct HintPages {
    pages: Vec<AtomicPtr<HintPage>>,
}

impl HintPages {
    /// Room for `vcpus` pages, none registered.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            pages: (0..vcpus).map(|_| AtomicPtr::default()).collect(),
        }
    }

    /// Registers the page with frame number `pfn` for vCPU `index`. `pfn` 0 ends the registration.
    ///
    /// `memory` must be the memory of the guest to which this value belongs: the mappings outlive the
    /// addresses that are kept here.
    ///
    /// # Errors
    /// If the page is not wholly in the guest's RAM. A page registered before stays.
    pub fn register(
        &self,
        index: u32,
        pfn: u32,
        memory: &GuestMemoryMmap,
    ) -> Result<(), BadHintPage> {
        let slot = self
            .pages
            .get(index as usize)
            .ok_or(BadHintPage::NoSuchVcpu)?;
        if pfn == 0 {
            slot.store(ptr::null_mut(), Ordering::Release);
            return Ok(());
        }
        // Regions are whole pages, so a page that starts in one lies in it.
        let start = GuestAddress(u64::from(pfn) * PAGE);
        if !memory.address_in_range(GuestAddress(start.0 + PAGE - 1)) {
            return Err(BadHintPage::NotInRam);
        }
        let host = memory
            .get_host_address(start)
            .map_err(|_| BadHintPage::NotInRam)?;
        slot.store(host.cast(), Ordering::Release);
        // Times and counts run from registration.
        if let Some(page) = self.page(index) {
            page.host_steal_ns().store(0, Ordering::Relaxed);
            page.host_preemptions().store(0, Ordering::Relaxed);
            page.host_ring().store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether vCPUs may register pages.
    #[must_use]
    pub fn are_offered(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Whether any vCPU has a page.
    #[must_use]
    pub fn is_any_registered(&self) -> bool {
        (0..self.pages.len() as u32).any(|index| self.is_registered(index))
    }

    /// Whether vCPU `index` has a page.
    #[must_use]
    pub fn is_registered(&self, index: u32) -> bool {
        self.page(index).is_some()
    }

    /// The hints of vCPU `index` now. Without a page, all counts are zero and the vCPU waits for none.
    #[must_use]
    pub fn snapshot(&self, index: u32) -> HintSnapshot {
        let Some(page) = self.page(index) else {
            return HintSnapshot::default();
        };
        let held = page.held().load(Ordering::Acquire);
        HintSnapshot {
            depth: held & ((1 << HELD_DEPTH_BITS) - 1),
            releases: held >> HELD_DEPTH_BITS,
            wait: self.wait(page, index),
            ..HintSnapshot::default()
        }
    }

    /// The wait record of `page` if the record is whole and names a vCPU other than `index` that exists.
    fn wait(&self, page: MappedPage, index: u32) -> Option<PublishedWait> {
        let before = page.seq().load(Ordering::Acquire);
        if before & 1 == 1 {
            return None;
        }
        let kind = match page.wait_kind().load(Ordering::Relaxed) {
            // A vCPU that waits until an interrupt is handled spins, and the handling is the release.
            WAIT_SPIN | WAIT_IPI => WaitKind::Spin,
            WAIT_BLOCK => WaitKind::Block,
            _ => return None,
        };
        let wait = PublishedWait {
            kind,
            lock: page.lock().load(Ordering::Relaxed),
            holder: nospec::below(
                page.holder().load(Ordering::Relaxed) as usize,
                self.pages.len(),
            )? as u32,
            holder_releases: page.holder_gen().load(Ordering::Relaxed),
        };
        // The reads above must not move below the second read of the count.
        fence(Ordering::Acquire);
        let whole = page.seq().load(Ordering::Relaxed) == before;
        (whole && wait.holder != index).then_some(wait)
    }

    /// Guest TSC value at which the idle vCPU `index` is to wake; 0 for never.
    #[must_use]
    pub fn idle_until_tsc(&self, index: u32) -> u64 {
        self.page(index)
            .map_or(0, |page| page.idle_until_tsc().load(Ordering::Relaxed))
    }

    /// The lock in the record of vCPU `index`, if the vCPU waits for none. With a release doorbell, this is
    /// the lock that the vCPU has handed on.
    #[must_use]
    pub fn handed_lock(&self, index: u32) -> Option<u64> {
        let page = self.page(index)?;
        let lock = page.lock().load(Ordering::Relaxed);
        let waits = page.wait_kind().load(Ordering::Relaxed) != WAIT_NONE;
        (!waits && lock != 0).then_some(lock)
    }

    /// Publishes to the guest whether vCPU `index` is on a host CPU.
    pub fn set_running(&self, index: u32, running: bool) {
        if let Some(page) = self.page(index) {
            page.host_running()
                .store(u32::from(running), Ordering::Release);
        }
    }

    /// Requests that vCPU `index` rings (`RING_*` bits). `donated_lock` and `donor` are valid with
    /// [`RING_DONATED`]. `bits` 0 withdraws the request.
    pub fn set_ring(&self, index: u32, bits: u32, donated_lock: u64, donor: u32) {
        debug_assert_eq!(bits & !(RING_DONATED | RING_DEFER), 0);
        if let Some(page) = self.page(index) {
            page.host_donated_lock()
                .store(donated_lock, Ordering::Relaxed);
            page.host_donor().store(donor, Ordering::Relaxed);
            page.host_ring().store(bits, Ordering::Release);
        }
    }

    /// Adds `ns` to the time for which vCPU `index` was runnable and did not run.
    pub fn add_steal(&self, index: u32, ns: u64) {
        if let Some(page) = self.page(index) {
            page.host_steal_ns().fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// Counts a preemption of vCPU `index`.
    pub fn count_preemption(&self, index: u32) {
        if let Some(page) = self.page(index) {
            page.host_preemptions().fetch_add(1, Ordering::Relaxed);
        }
    }

    fn page(&self, index: u32) -> Option<MappedPage<'_>> {
        let page = self.pages.get(index as usize)?.load(Ordering::Acquire);
        // SAFETY: `register` has checked that the whole page, which is aligned, is in guest memory, and
        // guest memory outlives this value.
        (!page.is_null()).then(|| unsafe { MappedPage::new(page) })
    }
}

#[cfg(test)]
mod tests;
