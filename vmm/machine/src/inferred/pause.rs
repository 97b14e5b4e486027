//! Whether a vCPU waits: a loop that waits on x86 has a PAUSE instruction, and is short.

use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::registers::{StoppedVcpu, Unreadable};

/// How far from the instruction pointer the PAUSE of a loop may be, bytes.
const REACH: u64 = 40;
const PAUSE: [u8; 2] = [0xf3, 0x90];
const PAGE: u64 = 4096;
/// Code pages whose places are kept. A kernel spins in a few.
const PAGES: usize = 8;
/// A kept place is found anew after this time, ns: the guest may have moved the page.
const RENEW_NS: u64 = 50_000_000;

/// Where the pages are in which a vCPU has been found. Only the owner of the vCPU uses it.
#[derive(Debug, Default)]
pub(super) struct CodePages([CodePage; PAGES]);

#[derive(Debug, Default)]
struct CodePage {
    virtual_page: AtomicU64,
    physical_page: AtomicU64,
    renew_at: AtomicU64,
}

impl CodePages {
    /// The guest-physical address of `page`, a virtual address, by `translate` if it is not kept.
    fn find(&self, page: u64, now: u64, translate: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
        let kept = &self.0[(page / PAGE) as usize % PAGES];
        let is_fresh = now < kept.renew_at.load(Ordering::Relaxed);
        if is_fresh && kept.virtual_page.load(Ordering::Relaxed) == page {
            return Some(kept.physical_page.load(Ordering::Relaxed));
        }
        let physical = translate(page)?;
        kept.virtual_page.store(page, Ordering::Relaxed);
        kept.physical_page.store(physical, Ordering::Relaxed);
        let renew_at = now.saturating_add(RENEW_NS);
        kept.renew_at.store(renew_at, Ordering::Relaxed);
        Some(physical)
    }
}

/// Whether `vcpu` is near a PAUSE in the code that it runs. Costs no system call while it is in pages in
/// which it was found a short time ago.
pub(super) fn is_near(
    vcpu: &mut impl StoppedVcpu,
    code: &CodePages,
    memory: &GuestMemoryMmap,
    now: u64,
) -> Result<bool, Unreadable> {
    let rip = vcpu.rip()?;
    Ok(is_in_reach(rip, |address, bytes| {
        let page = address & !(PAGE - 1);
        let physical = code.find(page, now, |page| vcpu.translate(page));
        let physical = physical.and_then(|physical| physical.checked_add(address - page));
        physical.is_some_and(|at| memory.read_slice(bytes, GuestAddress(at)).is_ok())
    }))
}

/// Whether there is a PAUSE near `rip`. `read` fills the buffer with the bytes at a virtual address, all of
/// which are in one page, and returns whether it could.
fn is_in_reach(rip: u64, read: impl FnOnce(u64, &mut [u8]) -> bool) -> bool {
    let page = rip & !(PAGE - 1);
    let at = rip & (PAGE - 1);
    let from = at.saturating_sub(REACH);
    let to = (at + REACH + PAUSE.len() as u64).min(PAGE);
    let mut bytes = [0; (2 * REACH) as usize + PAUSE.len()];
    let bytes = &mut bytes[..(to - from) as usize];
    read(page + from, bytes) && bytes.windows(PAUSE.len()).any(|code| code == PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a PAUSE at `at` is near `rip`.
    fn sees(rip: u64, at: u64) -> bool {
        is_in_reach(rip, |address, bytes| {
            assert_eq!(
                address / PAGE,
                (address + (bytes.len() as u64 - 1)) / PAGE,
                "one page"
            );
            for (byte, code) in PAUSE.iter().enumerate() {
                let place = (at + byte as u64).checked_sub(address);
                if let Some(slot) = place.and_then(|place| bytes.get_mut(place as usize)) {
                    *slot = *code;
                }
            }
            true
        })
    }

    #[test]
    fn a_pause_before_or_behind_the_instruction_pointer_is_seen_within_reach() {
        let rip = 0xffff_ffff_8123_4500;
        for at in [rip - REACH, rip - 2, rip, rip + REACH] {
            assert!(sees(rip, at));
        }
        for at in [rip - REACH - 1, rip + REACH + 1] {
            assert!(!sees(rip, at));
        }
    }

    #[test]
    fn the_search_stays_in_the_page_of_the_instruction_pointer() {
        for rip in [0, 0x1000, 0x1fff, u64::MAX, u64::MAX - PAGE + 1] {
            assert!(sees(rip, rip & !1) || rip & 0xfff == 0xfff);
            assert!(!sees(rip, (rip & !(PAGE - 1)).wrapping_sub(2)));
        }
    }

    #[test]
    fn code_that_cannot_be_read_has_no_pause() {
        let filled = |_, bytes: &mut [u8]| {
            bytes.copy_from_slice(&PAUSE.repeat(41)[..bytes.len()]);
            false
        };
        assert!(!is_in_reach(0x1800, filled));
    }

    #[test]
    fn a_page_is_translated_once_in_a_while() {
        use super::super::registers::tests::FakeVcpu;
        use crate::memory::GuestMemory;

        let memory = GuestMemory::new(4 << 20).expect("memory");
        let written = memory.regions().write_slice(&PAUSE, GuestAddress(0x1500));
        written.expect("in RAM");
        let code = CodePages::default();
        let rip = 0xffff_ffff_8123_4500;
        let mut vcpu = FakeVcpu::at(rip, &[(rip >> 12, 1)]);
        for (now, reads) in [(0, 1), (RENEW_NS - 1, 1), (RENEW_NS, 2)] {
            let near = is_near(&mut vcpu, &code, memory.regions(), now);
            assert_eq!((near, vcpu.reads), (Ok(true), reads), "at {now}");
        }
    }

    #[test]
    fn pages_outside_of_ram_and_pages_that_share_a_slot_have_no_pause() {
        use super::super::registers::tests::FakeVcpu;
        use crate::memory::GuestMemory;

        let memory = GuestMemory::new(4 << 20).expect("memory");
        let code = CodePages::default();
        let pages = [0, 8, 16, 1 << 40, (1 << 52) - 1];
        for (page, physical) in pages.iter().zip([u64::MAX >> 12, 1 << 20, 1024, 7, 0]) {
            let mut vcpu = FakeVcpu::at(page << 12 | 0x20, &[(*page, physical)]);
            assert_eq!(is_near(&mut vcpu, &code, memory.regions(), 0), Ok(false));
        }
    }
}
