//! The inferred hints of one guest.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::linked_count::LinkedCount;
use super::pause;
use super::place::CountPlace;
use super::registers::{self, Registers};
use super::scan::Finding;
use super::scanner::{self, ScanRequest, ScannedGuest};
use crate::hints::HintSnapshot;

/// So many scans are made at most. The first may come before the kernel has been loaded.
const MAX_SCANS: u32 = 4;
/// So many stops of the guest's vCPUs come before the first scan, unless a vCPU was seen in user mode
/// before. Each further scan comes after four times as many.
const FIRST_SCAN_AFTER: u32 = 64;

/// What is known of one vCPU.
#[derive(Debug, Default)]
struct VcpuState {
    place: CountPlace,
    /// How often the count was seen at 0, which stands for releases.
    seen_free: AtomicU32,
}

/// Where the kernel keeps its count.
#[derive(Clone, Copy, Debug)]
struct Count {
    /// From the GS base.
    offset: u64,
    /// An address in the kernel's text.
    text: u64,
}

/// How far the search for the count of a guest's kernel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountSearch {
    /// Scans are still to be made.
    Looking,
    /// The count was found.
    Found,
    /// The last scan has found none.
    NotFound,
}

/// The inferred hints of one guest.
///
/// The value lives inside the guest beside the guest's memory, and is dropped before the memory.
#[derive(Debug)]
pub struct InferredHints {
    vcpus: Vec<VcpuState>,
    count: OnceLock<Count>,
    linked: OnceLock<LinkedCount>,
    scanner: OnceLock<SyncSender<ScanRequest>>,
    is_scanning: AtomicBool,
    scans: AtomicU32,
    stops: AtomicU64,
}

impl InferredHints {
    /// For `vcpus` vCPUs. Nothing is inferred before the scanner is started.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            vcpus: (0..vcpus).map(|_| VcpuState::default()).collect(),
            count: OnceLock::new(),
            linked: OnceLock::new(),
            scanner: OnceLock::new(),
            is_scanning: AtomicBool::new(false),
            scans: AtomicU32::new(0),
            stops: AtomicU64::new(0),
        }
    }

    /// Begins to infer hints of `guest`, to which this value belongs.
    ///
    /// # Errors
    /// If the host refuses a thread.
    pub(crate) fn start(&self, guest: impl ScannedGuest) -> io::Result<()> {
        let sender = scanner::spawn(guest)?;
        // A second call has no effect: the thread of its sender ends.
        let _ = self.scanner.set(sender);
        Ok(())
    }

    /// Takes the count from the symbols of the guest's kernel, instead of a scan. This comes before
    /// [`Self::start`].
    pub(crate) fn set_linked(&self, count: LinkedCount) {
        let _ = self.linked.set(count);
    }

    /// What the symbols of the kernel say of the count, if they were given.
    pub(crate) fn linked(&self, request: ScanRequest) -> Option<Finding> {
        let linked = self.linked.get()?;
        Some(linked.in_kernel_with(request.address))
    }

    /// Whether hints of this guest are inferred, or are going to be.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.scanner.get().is_some()
    }

    /// How far the search for the count has come; `None` if none is made.
    pub(crate) fn search(&self) -> Option<CountSearch> {
        self.is_on().then(|| match self.count.get() {
            Some(_) => CountSearch::Found,
            None if self.scans.load(Ordering::Relaxed) >= MAX_SCANS => CountSearch::NotFound,
            None => CountSearch::Looking,
        })
    }

    /// The hints of vCPU `index`, which has left the guest `now`, ns, and whose KVM file is `fd`. `memory` is
    /// the guest's.
    #[must_use]
    pub fn snapshot(
        &self,
        index: u32,
        fd: &VcpuFd,
        memory: &GuestMemoryMmap,
        now: u64,
    ) -> HintSnapshot {
        let Some(vcpu) = self.vcpus.get(index as usize) else {
            return HintSnapshot::default();
        };
        let Some(count) = self.count.get() else {
            self.request_scan(fd);
            return self.free(vcpu);
        };
        if vcpu.place.is_due(now) {
            find(vcpu, *count, fd, memory, now);
        }
        if vcpu.place.read() == 0 {
            return self.free(vcpu);
        }
        HintSnapshot {
            depth: 1,
            releases: vcpu.seen_free.load(Ordering::Relaxed),
            waits: is_at_pause(fd, memory),
            is_guess: true,
            ..HintSnapshot::default()
        }
    }

    /// The hints of vCPU `index`, which has halted. The count of an idle task is not 0, but a halted vCPU
    /// holds nothing.
    #[must_use]
    pub fn halted(&self, index: u32) -> HintSnapshot {
        let vcpu = self.vcpus.get(index as usize);
        vcpu.map_or_else(HintSnapshot::default, |vcpu| self.free(vcpu))
    }

    /// The hints of a vCPU that holds nothing.
    fn free(&self, vcpu: &VcpuState) -> HintSnapshot {
        let seen = vcpu.seen_free.fetch_add(1, Ordering::Relaxed);
        HintSnapshot {
            releases: seen.wrapping_add(1),
            is_guess: true,
            ..HintSnapshot::default()
        }
    }

    /// Requests a scan of the kernel, if it is time for one.
    fn request_scan(&self, fd: &VcpuFd) {
        let scans = self.scans.load(Ordering::Relaxed);
        if scans >= MAX_SCANS || self.is_scanning.load(Ordering::Acquire) {
            return;
        }
        let stops = self.stops.fetch_add(1, Ordering::Relaxed);
        let is_due = stops >= u64::from(FIRST_SCAN_AFTER) << (2 * scans);
        // Only the first scan comes early, so that a guest without a count costs no more than a few.
        if !is_due && scans > 0 {
            return;
        }
        let Some(registers) = Registers::of(fd) else {
            return;
        };
        if !is_due && !registers.is_cpl3 {
            return;
        }
        let place = [registers::syscall_entry(fd), Some(registers.rip)]
            .into_iter()
            .flatten()
            .find_map(|address| {
                let physical = registers::translate(fd, address)?;
                Some(ScanRequest { address, physical })
            });
        let (Some(request), Some(scanner)) = (place, self.scanner.get()) else {
            return;
        };
        if !self.is_scanning.swap(true, Ordering::AcqRel) && scanner.try_send(request).is_err() {
            // The thread is gone.
            self.scans.store(MAX_SCANS, Ordering::Relaxed);
        }
    }

    /// A scan around the place of `request` has come to `finding`. Returns a sentence about it for the user,
    /// if this was the last scan.
    pub(crate) fn scanned(&self, request: ScanRequest, finding: Finding) -> Option<String> {
        let scans = self.scans.fetch_add(1, Ordering::Relaxed) + 1;
        let report = match finding {
            Finding::Found(offset) => {
                let text = request.address;
                let _ = self.count.set(Count { offset, text });
                self.scans.store(MAX_SCANS, Ordering::Relaxed);
                Some(format!(
                    "hints are inferred from the preempt count of its kernel, at {offset:#x} from GS"
                ))
            }
            Finding::NotFound if scans >= MAX_SCANS && self.linked.get().is_some() => Some(
                "no hints are inferred, because the symbols given are not those of its kernel"
                    .to_owned(),
            ),
            Finding::NotFound if scans >= MAX_SCANS => {
                Some("no hints are inferred, because its kernel has no preempt count".to_owned())
            }
            Finding::NotFound => None,
        };
        self.is_scanning.store(false, Ordering::Release);
        report
    }
}

/// Finds the count of `vcpu` again, unless the vCPU is in user mode, where GS is not the kernel's.
fn find(vcpu: &VcpuState, count: Count, fd: &VcpuFd, memory: &GuestMemoryMmap, now: u64) {
    let Some(registers) = Registers::of(fd) else {
        return;
    };
    let address = registers.gs_base.wrapping_add(count.offset);
    if registers.is_user_mode(count.text) || !registers::in_same_half(address, count.text) {
        return;
    }
    let translate = |address| registers::translate(fd, address);
    vcpu.place.renew(address, translate, memory, now);
}

/// Whether the vCPU of `fd` is in a loop that waits.
fn is_at_pause(fd: &VcpuFd, memory: &GuestMemoryMmap) -> bool {
    let read = |address, bytes: &mut [u8]| {
        registers::translate(fd, address)
            .is_some_and(|physical| memory.read_slice(bytes, GuestAddress(physical)).is_ok())
    };
    registers::rip(fd).is_some_and(|rip| pause::is_near(rip, read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_that_do_not_fit_the_kernel_are_reported_when_the_last_place_was_tried() {
        let hints = InferredHints::new(1);
        let request = ScanRequest {
            address: 0xffff_ffff_8100_1000,
            physical: 0x100_1000,
        };
        assert_eq!(hints.linked(request), None, "a scan is needed");
        hints.set_linked(LinkedCount {
            offset: 0x35008,
            syscall_entry: Some(0xffff_ffff_8200_0080),
        });
        let mut report = None;
        for _ in 0..MAX_SCANS {
            assert_eq!(report, None);
            let finding = hints.linked(request).expect("no scan is needed");
            report = hints.scanned(request, finding);
        }
        assert!(report.is_some_and(|text| text.contains("the symbols given are not those")));
    }
}
