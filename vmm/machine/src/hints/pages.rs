//! Hint pages: the host's side of [`baton_abi::hints`].
//!
//! Everything a guest writes is copied once, checked, and believed only as far as it concerns the
//! guest itself. All accesses are atomic on an address that was checked when the page was
//! registered: no lock, no allocation and no search on the path of a scheduling decision.

use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use baton_abi::hints::{
    GuestHints, HELD_DEPTH_BITS, HintPage, HostHints, RING_DEFER, RING_DONATED, WAIT_BLOCK,
    WAIT_IPI, WAIT_NONE, WAIT_SPIN,
};
use baton_os::nospec;
use vcpu_sched::WaitKind;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A hint page is a page.
const PAGE: u64 = 4096;
const _: () = assert!(size_of::<HintPage>() <= PAGE as usize);
// The plain integers of the ABI are read and written here as atomics of the same layout.
const _: () = assert!(size_of::<GuestHints>() == 64 && size_of::<HostHints>() == 64);

/// A vCPU's statement that it waits for another one of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How it waits.
    pub kind: WaitKind,
    /// The lock's name within the guest.
    pub lock: u64,
    /// Index of the vCPU it waits for: below the guest's number of vCPUs, and not the waiter.
    pub holder: u32,
    /// The holder's release count when the waiter looked; compare with
    /// [`HintSnapshot::releases`] of the holder, modulo 2^24.
    pub holder_releases: u32,
}

/// A checked copy of what one vCPU says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintSnapshot {
    /// Locks held now.
    pub depth: u32,
    /// Locks released so far, modulo 2^24.
    pub releases: u32,
    /// Whom it waits for, if that makes sense.
    pub wait: Option<Wait>,
}

/// Why a page was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHintPage {
    /// There is no such vCPU.
    NoSuchVcpu,
    /// The page is not in RAM.
    NotInRam,
}

/// The hint pages of one guest, by vCPU index.
///
/// Lives inside the guest beside its memory, and is dropped before it.
#[derive(Debug)]
pub struct Hints {
    pages: Vec<AtomicPtr<HintPage>>,
}

impl Hints {
    /// Room for `vcpus` pages, none registered.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            pages: (0..vcpus).map(|_| AtomicPtr::default()).collect(),
        }
    }

    /// Registers the page with frame number `pfn` for vCPU `index`; `pfn` 0 takes it back.
    ///
    /// `memory` must be the memory of the guest that this value belongs to: its mappings outlive
    /// the addresses that are kept here.
    ///
    /// # Errors
    /// If the page is not wholly in the guest's RAM; a page registered before stays.
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

    /// Whether vCPU `index` has a page.
    #[must_use]
    pub fn is_registered(&self, index: u32) -> bool {
        self.page(index).is_some()
    }

    /// What vCPU `index` says now; all zero and waiting for nobody without a page.
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
        }
    }

    /// The wait record of `page` if it is whole and names a vCPU that can be waited for.
    fn wait(&self, page: Page, index: u32) -> Option<Wait> {
        let before = page.seq().load(Ordering::Acquire);
        if before & 1 == 1 {
            return None;
        }
        let kind = match page.wait_kind().load(Ordering::Relaxed) {
            // Whoever waits for an answer to an interrupt spins, and the answer is the release.
            WAIT_SPIN | WAIT_IPI => WaitKind::Spin,
            WAIT_BLOCK => WaitKind::Block,
            _ => return None,
        };
        let wait = Wait {
            kind,
            lock: page.lock().load(Ordering::Relaxed),
            holder: nospec::below(
                page.holder().load(Ordering::Relaxed) as usize,
                self.pages.len(),
            )? as u32,
            holder_releases: page.holder_gen().load(Ordering::Relaxed),
        };
        // The reads above must not move below the second look at the count.
        fence(Ordering::Acquire);
        let whole = page.seq().load(Ordering::Relaxed) == before;
        (whole && wait.holder != index).then_some(wait)
    }

    /// Guest TSC value at which the idle vCPU `index` wants to wake; 0 for never.
    #[must_use]
    pub fn idle_until_tsc(&self, index: u32) -> u64 {
        self.page(index)
            .map_or(0, |page| page.idle_until_tsc().load(Ordering::Relaxed))
    }

    /// The lock that vCPU `index`, waiting for nobody, names in its record: with a release doorbell,
    /// the one that it has handed on.
    #[must_use]
    pub fn handed_lock(&self, index: u32) -> Option<u64> {
        let page = self.page(index)?;
        let lock = page.lock().load(Ordering::Relaxed);
        let waits = page.wait_kind().load(Ordering::Relaxed) != WAIT_NONE;
        (!waits && lock != 0).then_some(lock)
    }

    /// Tells the guest whether vCPU `index` is on a host CPU.
    pub fn set_running(&self, index: u32, running: bool) {
        if let Some(page) = self.page(index) {
            page.host_running()
                .store(u32::from(running), Ordering::Release);
        }
    }

    /// Asks vCPU `index` to ring (`RING_*` bits); `donated_lock` and `donor` go with
    /// [`RING_DONATED`]. 0 takes the request back.
    pub fn set_ring(&self, index: u32, bits: u32, donated_lock: u64, donor: u32) {
        debug_assert_eq!(bits & !(RING_DONATED | RING_DEFER), 0);
        if let Some(page) = self.page(index) {
            page.host_donated_lock()
                .store(donated_lock, Ordering::Relaxed);
            page.host_donor().store(donor, Ordering::Relaxed);
            page.host_ring().store(bits, Ordering::Release);
        }
    }

    /// Adds `ns` to the time that vCPU `index` was runnable and did not run.
    pub fn add_steal(&self, index: u32, ns: u64) {
        if let Some(page) = self.page(index) {
            page.host_steal_ns().fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// Counts that vCPU `index` was taken off its host CPU against its will.
    pub fn count_preemption(&self, index: u32) {
        if let Some(page) = self.page(index) {
            page.host_preemptions().fetch_add(1, Ordering::Relaxed);
        }
    }

    fn page(&self, index: u32) -> Option<Page<'_>> {
        let page = self.pages.get(index as usize)?.load(Ordering::Acquire);
        (!page.is_null()).then_some(Page { page, _hints: self })
    }
}

/// A registered page; its fields as atomics.
#[derive(Clone, Copy)]
struct Page<'a> {
    page: *mut HintPage,
    // The page lives as long as the guest's memory, which outlives `Hints`.
    _hints: &'a Hints,
}

macro_rules! fields {
    ($($name:ident: $half:ident . $field:ident as $atomic:ty;)*) => {
        impl<'a> Page<'a> {
            $(
                fn $name(self) -> &'a $atomic {
                    // SAFETY: `register` checked that the whole page is in guest memory, which
                    // stays mapped longer than 'a. Pages are aligned, and so is every field. The
                    // guest may write at any time; this process touches it only by atomics.
                    unsafe { <$atomic>::from_ptr(&raw mut (*self.page).$half.$field) }
                }
            )*
        }
    };
}

fields! {
    seq: guest.seq as AtomicU32;
    wait_kind: guest.wait_kind as AtomicU32;
    lock: guest.lock as AtomicU64;
    holder: guest.holder as AtomicU32;
    holder_gen: guest.holder_gen as AtomicU32;
    held: guest.held as AtomicU32;
    idle_until_tsc: guest.idle_until_tsc as AtomicU64;
    host_running: host.running as AtomicU32;
    host_ring: host.ring as AtomicU32;
    host_donated_lock: host.donated_lock as AtomicU64;
    host_steal_ns: host.steal_ns as AtomicU64;
    host_preemptions: host.preemptions as AtomicU32;
    host_donor: host.donor as AtomicU32;
}

#[cfg(test)]
mod tests;
