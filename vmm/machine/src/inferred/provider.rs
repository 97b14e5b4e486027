//! The inferred hints of one guest.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;

use vm_memory::GuestMemoryMmap;

use super::any_guest;
use super::linked_count::LinkedCount;
use super::linux::{FoundCount, PreemptCount};
use super::notice::Notice;
use super::pause::{self, CodePages};
use super::place::CountPlace;
use super::plausibility::{Circumstances, Implausible, Plausibility};
use super::registers::{StoppedVcpu, Unreadable};
use super::scan::Finding;
use super::scanner::{self, ScanRequest, Scanned, ScannedGuest};
use super::search::{Progress, Search};
use crate::hints::{HintPages, HintSnapshot};

/// So many counts are taken of one guest: it may start another kernel so many times, less one.
const MAX_COUNTS: usize = 8;
/// So many times in a row the kernel's text has to be another one than before.
const MAX_CHANGES: u32 = 3;

/// What is known of one vCPU.
#[derive(Debug, Default)]
struct VcpuState {
    place: CountPlace,
    code: CodePages,
    /// How often the vCPU was found to hold nothing, which stands for releases.
    seen_free: AtomicU32,
    has_halted: AtomicBool,
}

impl VcpuState {
    /// The hints of a vCPU that holds nothing.
    fn free(&self) -> HintSnapshot {
        let seen = self.seen_free.fetch_add(1, Ordering::Relaxed);
        HintSnapshot {
            releases: seen.wrapping_add(1),
            is_guess: true,
            ..HintSnapshot::default()
        }
    }

    /// The hints of a vCPU that holds something, or waits for that.
    fn holding(&self, waits: bool) -> HintSnapshot {
        HintSnapshot {
            depth: 1,
            releases: self.seen_free.load(Ordering::Relaxed),
            waits,
            is_guess: true,
            ..HintSnapshot::default()
        }
    }
}

/// At what stop of a vCPU a scan is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It could go on, and may be in user mode.
    Preemption,
    /// It has halted, which it can only in the kernel.
    Halt,
}

/// A count that has been found.
#[derive(Debug)]
struct KnownCount {
    found: FoundCount,
    plausibility: Plausibility,
    /// How often in a row the kernel's text was another one.
    changes: AtomicU32,
}

/// What belongs to the guest of a vCPU, and is needed to infer the vCPU's hints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestParts<'a> {
    pub(crate) memory: &'a GuestMemoryMmap,
    pub(crate) pages: &'a HintPages,
}

/// The layers by which the hints of a guest are inferred.
#[derive(Debug)]
enum Layers {
    /// That of any guest. The guest's kernel is not scanned.
    AnyGuest,
    /// That of Linux as well, for which scans are requested of this thread.
    Linux(SyncSender<ScanRequest>),
}

/// The inferred hints of one guest.
///
/// The value lives inside the guest beside the guest's memory, and is dropped before the memory.
#[derive(Debug)]
pub struct InferredHints {
    vcpus: Vec<VcpuState>,
    counts: [OnceLock<KnownCount>; MAX_COUNTS],
    /// The number of the count that is used, from 1; 0: none.
    current: AtomicU32,
    search: Search,
    linked: OnceLock<LinkedCount>,
    /// None is set before hints are inferred.
    layers: OnceLock<Layers>,
    is_unreadable: AtomicBool,
    has_reported_none: AtomicBool,
}

impl InferredHints {
    /// For `vcpus` vCPUs. Nothing is inferred before `start` or `start_without_scans`.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            vcpus: (0..vcpus).map(|_| VcpuState::default()).collect(),
            counts: Default::default(),
            current: AtomicU32::new(0),
            search: Search::default(),
            linked: OnceLock::new(),
            layers: OnceLock::new(),
            is_unreadable: AtomicBool::new(false),
            has_reported_none: AtomicBool::new(false),
        }
    }

    /// Begins to infer hints of `guest`, to which this value belongs.
    ///
    /// # Errors
    /// If the host refuses a thread.
    pub(crate) fn start(&self, guest: impl ScannedGuest) -> io::Result<()> {
        let sender = scanner::spawn(guest)?;
        // A second call has no effect: the thread of its sender ends.
        let _ = self.layers.set(Layers::Linux(sender));
        Ok(())
    }

    /// Begins to infer what can be inferred of any guest. No preempt count is searched for.
    pub(crate) fn start_without_scans(&self) {
        let _ = self.layers.set(Layers::AnyGuest);
    }

    /// Takes the count from the symbols of the guest's kernel, instead of a scan. This comes before
    /// [`Self::start`].
    pub(crate) fn set_linked(&self, count: LinkedCount) {
        let _ = self.linked.set(count);
    }

    /// Where the count is by the symbols of the kernel, if they were given.
    pub(crate) fn linked(&self, request: ScanRequest) -> Option<Finding> {
        let linked = self.linked.get()?;
        Some(linked.in_kernel_with(request.address))
    }

    /// How far the search for the count has come; `None` if nothing is inferred.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let layers = self.layers.get().filter(|_| self.is_on())?;
        Some(match (layers, self.count()) {
            (Layers::AnyGuest, _) => Progress::NoSearch,
            (Layers::Linux(_), Some(_)) => Progress::Found,
            (Layers::Linux(_), None) if self.search.is_over() => Progress::NotFound,
            (Layers::Linux(_), None) => Progress::Looking,
        })
    }

    /// Whether hints of this guest are inferred.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.layers.get().is_some() && !self.is_unreadable.load(Ordering::Relaxed)
    }

    /// The hints of vCPU `index`, which has left the guest as `vcpu` at `now`, ns, and a notice for the user.
    #[must_use]
    pub(crate) fn look(
        &self,
        index: u32,
        vcpu: &mut impl StoppedVcpu,
        guest: GuestParts<'_>,
        now: u64,
    ) -> (HintSnapshot, Option<Notice>) {
        let Some(state) = self.vcpus.get(index as usize) else {
            return (HintSnapshot::default(), None);
        };
        let looked = match self.count() {
            Some((number, count)) => self.look_at_count(state, number, count, vcpu, guest, now),
            None => self.look_at_any(state, vcpu, guest, now),
        };
        looked.unwrap_or_else(|Unreadable| {
            let was_known = self.is_unreadable.swap(true, Ordering::Relaxed);
            (state.free(), (!was_known).then_some(Notice::Unreadable))
        })
    }

    /// The hints of vCPU `index`, which has halted as `vcpu` at `now`, ns. The count of an idle task is not 0, but
    /// a halted vCPU holds nothing.
    #[must_use]
    pub(crate) fn halted(
        &self,
        index: u32,
        vcpu: &mut impl StoppedVcpu,
        guest: GuestParts<'_>,
        now: u64,
    ) -> HintSnapshot {
        let Some(state) = self.vcpus.get(index as usize) else {
            return HintSnapshot::default();
        };
        state.has_halted.store(true, Ordering::Relaxed);
        if self.count().is_none() {
            // If the registers cannot be read, the next look finds that out as well, and reports it.
            let _ = self.request_scan(vcpu, guest.pages, now, At::Halt);
        }
        state.free()
    }

    /// The count that is used, with its number.
    fn count(&self) -> Option<(u32, &KnownCount)> {
        let number = self.current.load(Ordering::Acquire);
        let count = self.counts.get(number.checked_sub(1)? as usize)?.get()?;
        Some((number, count))
    }

    /// The hints of a vCPU of a guest without a count.
    fn look_at_any(
        &self,
        state: &VcpuState,
        vcpu: &mut impl StoppedVcpu,
        guest: GuestParts<'_>,
        now: u64,
    ) -> Result<(HintSnapshot, Option<Notice>), Unreadable> {
        self.request_scan(vcpu, guest.pages, now, At::Preemption)?;
        let waits = any_guest::waits(vcpu, &state.code, guest.memory, now)?;
        let hints = HintSnapshot {
            waits,
            ..state.free()
        };
        Ok((hints, None))
    }

    /// The hints of a vCPU by its `count`. Costs no system call while the count is 0 and its place is known.
    fn look_at_count(
        &self,
        state: &VcpuState,
        number: u32,
        count: &KnownCount,
        vcpu: &mut impl StoppedVcpu,
        guest: GuestParts<'_>,
        now: u64,
    ) -> Result<(HintSnapshot, Option<Notice>), Unreadable> {
        state.place.belong_to(number);
        if state.place.is_due(now) {
            self.find(state, number, count, vcpu, guest.memory, now)?;
        }
        let Some(word) = state.place.read().map(PreemptCount) else {
            return Ok((state.free(), None));
        };
        let values = &count.plausibility;
        let has_halted = state.has_halted.swap(false, Ordering::Relaxed);
        let is_user_mode = (!word.is_zero() || values.awaits_first_count())
            && count.found.is_user_mode(vcpu.rip()?);
        let is_held = !word.is_zero() && !is_user_mode && word.is_plausible();
        let waits = is_held && pause::is_near(vcpu, &state.code, guest.memory, now)?;
        let seen = Circumstances {
            is_user_mode,
            waits,
            has_halted,
        };
        let notice = self.judge(number, count, values.record(word, seen));
        let hints = match is_held && notice.is_none() {
            true => state.holding(waits),
            false => state.free(),
        };
        Ok((hints, notice))
    }

    /// Finds `count`, which has this number, again for a vCPU, unless the vCPU is in user mode, where GS is not the
    /// kernel's. Stops using the count if the kernel is another one.
    fn find(
        &self,
        state: &VcpuState,
        number: u32,
        count: &KnownCount,
        vcpu: &mut impl StoppedVcpu,
        memory: &GuestMemoryMmap,
        now: u64,
    ) -> Result<(), Unreadable> {
        if count.found.is_user_mode(vcpu.rip()?) {
            return Ok(());
        }
        let Some(address) = count.found.address(vcpu.segments()?) else {
            return Ok(());
        };
        if count.found.is_in_text(vcpu, memory) {
            count.changes.store(0, Ordering::Relaxed);
            let translate = |address| vcpu.translate(address);
            state.place.renew(address, translate, memory, now);
        } else if count.changes.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_CHANGES {
            self.stop_using(number);
        }
        Ok(())
    }

    /// Stops using count `number`. Returns whether it was used until now: another vCPU may have stopped that before,
    /// and yet another count may be used by now.
    fn stop_using(&self, number: u32) -> bool {
        let (release, relaxed) = (Ordering::Release, Ordering::Relaxed);
        let stopped = self.current.compare_exchange(number, 0, release, relaxed);
        stopped.is_ok()
    }

    /// Stops using count `number` if the verdict is that it is none.
    fn judge(
        &self,
        number: u32,
        count: &KnownCount,
        verdict: Option<Implausible>,
    ) -> Option<Notice> {
        let reason = verdict?;
        if !self.stop_using(number) {
            return None;
        }
        self.search.give_up();
        Some(Notice::Wrong(count.found.offset, reason))
    }

    /// Requests a scan of the kernel, if it is time for one.
    fn request_scan(
        &self,
        vcpu: &mut impl StoppedVcpu,
        pages: &HintPages,
        now: u64,
        at: At,
    ) -> Result<(), Unreadable> {
        let Some(Layers::Linux(scanner)) = self.layers.get() else {
            return Ok(());
        };
        // Most kernels are in the upper half. A small one may itself run in the lower half, at level 3.
        let mut is_user_mode = || match at {
            At::Preemption => Ok(vcpu.rip()? >> 63 == 0 && vcpu.segments()?.is_cpl3),
            At::Halt => Ok(false),
        };
        if !self.search.is_due(now, &mut is_user_mode)? {
            return Ok(());
        }
        if (0..self.vcpus.len() as u32).any(|index| pages.is_registered(index)) {
            self.search.stop();
            return Ok(());
        }
        let entry = vcpu.syscall_entry()?;
        let addresses = [entry, Some(vcpu.rip()?)].into_iter().flatten();
        let place = addresses.into_iter().find_map(|address| {
            let physical = vcpu.translate(address)?;
            Some(ScanRequest { address, physical })
        });
        let Some(request) = place else {
            self.search.put_off(now);
            return Ok(());
        };
        if self.search.begin(entry.unwrap_or(0), now) && scanner.try_send(request).is_err() {
            // The thread is gone, or busy.
            self.search.stop();
        }
        Ok(())
    }

    /// A scan has come to its end. Returns a notice for the user, if there is something new.
    pub(crate) fn scanned(&self, scanned: &Scanned) -> Option<Notice> {
        let known = FoundCount::of(scanned).map(|found| KnownCount {
            found,
            plausibility: Plausibility::default(),
            changes: AtomicU32::new(0),
        });
        let Some(known) = known else {
            let is_over = self.search.end(false);
            let is_new = is_over && !self.has_reported_none.swap(true, Ordering::Relaxed);
            return is_new.then_some(match self.linked.get() {
                Some(_) => Notice::OtherSymbols,
                None => Notice::NotFound,
            });
        };
        let offset = known.found.offset;
        // Only the one scanner gets here, so nobody takes the slot meanwhile.
        let number = self.counts.iter().position(|slot| slot.get().is_none());
        let taken = number.filter(|&slot| self.counts[slot].set(known).is_ok());
        if let Some(slot) = taken {
            self.current.store(slot as u32 + 1, Ordering::Release);
        } else {
            self.search.stop();
        }
        self.search.end(true);
        taken.map(|_| Notice::Found(offset))
    }
}

#[cfg(test)]
mod tests;
