//! The hints of vCPUs whose registers, page tables and memory a test makes up.

use std::sync::mpsc::{Receiver, sync_channel};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::registers::Segments;
use super::super::registers::tests::FakeVcpu;
use super::super::scan::Finding;
use super::*;
use crate::memory::GuestMemory;

const MEMORY: u64 = 8 << 20;
const TEXT: u64 = 0xffff_ffff_8100_0000;
const TEXT_AT: u64 = 0x10_0000;
/// Where in the text a loop waits.
const LOOP: u64 = TEXT + 0x8000;
const GS: u64 = 0xffff_8880_0000_0000;
const GS_AT: u64 = 0x20_0000;
const COUNT: u64 = 0x20;
/// In another kernel.
const OTHER_COUNT: u64 = 0x48;
const USER: u64 = 0x40_1000;
const MS: u64 = 1_000_000;

/// A guest with a kernel in its memory, and a vCPU in that.
struct World {
    memory: GuestMemory,
    pages: HintPages,
    inferred: InferredHints,
    requests: Receiver<ScanRequest>,
    vcpu: FakeVcpu,
    now: u64,
}

/// The guest as the scanner reads it.
struct Kernel(GuestMemoryMmap);

impl ScannedGuest for Kernel {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<usize> {
        let read = self.0.read(bytes, GuestAddress(address));
        Some(read.unwrap_or(0))
    }

    fn finished(&self, _: Scanned) {}
}

impl World {
    /// A vCPU in user mode, whose kernel counts in [`COUNT`].
    fn new() -> Self {
        let inferred = InferredHints::new(2);
        let (sender, requests) = sync_channel(1);
        let started = inferred.layers.set(Layers::Linux(sender));
        started.expect("the first");
        let mut vcpu = FakeVcpu::at(USER, &[]);
        for page in 0..16 {
            vcpu.pages
                .insert((TEXT >> 12) + page, (TEXT_AT >> 12) + page);
            vcpu.pages.insert((GS >> 12) + page, (GS_AT >> 12) + page);
        }
        let world = Self {
            memory: GuestMemory::new(MEMORY).expect("memory"),
            pages: HintPages::new(2),
            inferred,
            requests,
            vcpu,
            now: MS,
        };
        world.load_kernel(COUNT);
        world.enter_user_mode()
    }

    /// The same after the scan.
    fn scanned() -> Self {
        let mut world = Self::new();
        let _ = world.look();
        assert_eq!(world.scan(), Some(Notice::Found(COUNT)));
        world.enter_kernel(TEXT);
        world
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let regions = self.memory.regions();
        regions.write_slice(bytes, GuestAddress(at)).expect("RAM");
    }

    /// Writes text that counts in the variable at `offset` from GS.
    fn load_kernel(&self, offset: u64) {
        let mut text = Vec::new();
        for form in [0x05, 0x0d].repeat(200) {
            text.extend([0x65, 0xff, form]);
            let after = TEXT + text.len() as u64 + 4;
            text.extend((offset.wrapping_sub(after) as i32).to_le_bytes());
        }
        self.write(TEXT_AT, &text);
        self.write(TEXT_AT + (LOOP - TEXT), &[0xf3, 0x90]);
    }

    fn enter_user_mode(mut self) -> Self {
        self.vcpu.rip = USER;
        self.vcpu.entry = Ok(Some(TEXT));
        self.vcpu.segments = Ok(Segments {
            gs_base: 0x7000,
            is_cpl3: true,
        });
        self
    }

    fn enter_kernel(&mut self, rip: u64) {
        self.vcpu.rip = rip;
        self.vcpu.segments = Ok(Segments {
            gs_base: GS,
            is_cpl3: false,
        });
    }

    fn set_count(&self, word: u32) {
        self.write(GS_AT + COUNT, &word.to_le_bytes());
    }

    /// A look at the vCPU, and the notice that comes of it.
    fn look(&mut self) -> (HintSnapshot, Option<Notice>) {
        self.now += 1;
        let guest = GuestParts {
            memory: self.memory.regions(),
            pages: &self.pages,
        };
        self.inferred.look(0, &mut self.vcpu, guest, self.now)
    }

    /// Depth and whether it waits.
    fn hints(&mut self) -> (u32, bool) {
        let (hints, notice) = self.look();
        assert_eq!(notice, None);
        assert!(hints.is_guess && hints.wait.is_none());
        (hints.depth, hints.waits)
    }

    /// Makes the scan that was requested, if one was.
    fn scan(&mut self) -> Option<Notice> {
        let request = self.requests.try_recv().ok()?;
        let kernel = Kernel(self.memory.regions().clone());
        let scanned = scanner::scan(&kernel, request).expect("runs");
        self.inferred.scanned(&scanned)
    }
}

#[test]
fn a_count_makes_a_holder_and_a_pause_a_waiter() {
    let mut world = World::scanned();
    for (word, rip, hints) in [
        (0, TEXT, (0, false)),
        (0x8000_0000, LOOP, (0, false)),
        (0x8000_0001, TEXT, (1, false)),
        (1, LOOP, (1, true)),
        (0x1_0002, TEXT, (1, false)),
    ] {
        world.set_count(word);
        world.enter_kernel(rip);
        assert_eq!(world.hints(), hints, "{word:#x}");
    }
}

#[test]
fn a_vcpu_in_user_mode_holds_nothing_whatever_is_counted() {
    let mut world = World::scanned();
    world.set_count(1);
    assert_eq!(world.hints(), (1, false));
    let mut world = world.enter_user_mode();
    assert_eq!(world.hints(), (0, false));
}

#[test]
fn in_the_steady_state_a_look_costs_no_system_call() {
    let mut world = World::scanned();
    world.set_count(1);
    world.enter_kernel(LOOP);
    assert_eq!(world.hints(), (1, true));
    let reads = world.vcpu.reads;
    for word in [0, 1, 0, 0x8000_0001] {
        world.set_count(word);
        let _ = world.hints();
    }
    let mut world = world.enter_user_mode();
    world.set_count(0);
    let _ = world.hints();
    assert_eq!(world.vcpu.reads, reads);
}

#[test]
fn a_guest_with_a_hint_page_is_never_scanned() {
    let mut world = World::new();
    let page = world.pages.register(1, 0x300, world.memory.regions());
    page.expect("a page in RAM");
    for _ in 0..10 {
        world.now += 100_000 * MS;
        let _ = world.look();
        assert!(world.requests.try_recv().is_err());
    }
}

#[test]
fn a_guest_whose_vcpus_only_halt_is_scanned_after_a_while() {
    let mut world = World::new();
    world.enter_kernel(TEXT);
    for (seconds, is_scanned) in [(0, false), (1, false), (3, true)] {
        let guest = GuestParts {
            memory: world.memory.regions(),
            pages: &world.pages,
        };
        let now = MS + seconds * 1000 * MS;
        let hints = world.inferred.halted(0, &mut world.vcpu, guest, now);
        assert_eq!((hints.depth, hints.waits), (0, false));
        let found = world.scan() == Some(Notice::Found(COUNT));
        assert_eq!(found, is_scanned, "after {seconds} s");
    }
}

#[test]
fn a_vcpu_that_starts_late_is_found_when_it_has_its_gs() {
    let mut world = World::scanned();
    world.set_count(1);
    world.vcpu.segments = Ok(Segments {
        gs_base: 0,
        is_cpl3: false,
    });
    assert_eq!(world.hints(), (0, false));
    world.enter_kernel(TEXT);
    world.now += 2 * MS;
    assert_eq!(world.hints(), (1, false));
}

#[test]
fn another_kernel_is_scanned_and_its_count_is_found() {
    let mut world = World::scanned();
    world.set_count(1);
    assert_eq!(world.hints(), (1, false));
    world.load_kernel(OTHER_COUNT);
    for _ in 0..MAX_CHANGES {
        world.now += 100 * MS;
        let _ = world.hints();
    }
    assert_eq!(world.hints(), (0, false), "the old count is not used");
    world.now += 2_000 * MS;
    let _ = world.hints();
    assert_eq!(world.scan(), Some(Notice::Found(OTHER_COUNT)));
    assert_eq!(world.hints(), (0, false));
    world.write(GS_AT + OTHER_COUNT, &[1, 0, 0, 0]);
    assert_eq!(world.hints(), (1, false));
}

#[test]
fn a_vcpu_that_notices_the_end_of_a_kernel_late_does_not_end_the_use_of_the_next_count() {
    let mut world = World::scanned();
    world.load_kernel(OTHER_COUNT);
    for _ in 0..MAX_CHANGES {
        world.now += 100 * MS;
        let _ = world.look();
    }
    world.now += 2_000 * MS;
    let _ = world.look();
    assert_eq!(world.scan(), Some(Notice::Found(OTHER_COUNT)));

    let inferred = &world.inferred;
    let (state, first) = (&inferred.vcpus[1], inferred.counts[0].get().expect("found"));
    let regions = world.memory.regions();
    let late = inferred.find(state, 1, first, &mut world.vcpu, regions, world.now);
    assert_eq!(late, Ok(()));
    assert!(first.changes.load(Ordering::Relaxed) > MAX_CHANGES);
    assert_eq!(inferred.count().map(|(number, _)| number), Some(2));
}

#[test]
fn a_count_by_symbols_is_used_as_long_as_the_entry_for_system_calls_is_where_it_was() {
    let mut world = World::new();
    world.inferred.set_linked(LinkedCount {
        offset: COUNT,
        syscall_entry: Some(TEXT),
    });
    let _ = world.look();
    let request = world.requests.try_recv().expect("a vCPU is in user mode");
    let scanned = Scanned {
        request,
        finding: world.inferred.linked(request).expect("symbols"),
        witness: None,
    };
    let found = world.inferred.scanned(&scanned);
    assert_eq!(found, Some(Notice::Found(COUNT)));
    world.set_count(1);
    world.enter_kernel(LOOP);
    // The code there does not name the count, and need not.
    world.load_kernel(OTHER_COUNT);
    for _ in 0..2 * MAX_CHANGES {
        world.now += 100 * MS;
        assert_eq!(world.hints(), (1, true));
    }
    // A kernel that has moved does not have it there.
    world.vcpu.pages.insert(TEXT >> 12, (TEXT_AT >> 12) + 1);
    for _ in 0..MAX_CHANGES {
        world.now += 100 * MS;
        let _ = world.look();
    }
    assert!(world.inferred.count().is_none());
}

#[test]
fn a_kernel_that_is_not_mapped_for_a_moment_is_no_other_one() {
    let mut world = World::scanned();
    world.set_count(1);
    let mapped = world.vcpu.pages.clone();
    for _ in 0..10 {
        world.now += 100 * MS;
        assert_eq!(world.hints(), (1, false));
        world.vcpu.pages.clear();
        world.now += 100 * MS;
        let _ = world.look();
        world.vcpu.pages.clone_from(&mapped);
    }
    assert_eq!(world.hints(), (1, false));
}

#[test]
fn a_value_that_is_no_count_is_no_hint_and_ends_the_use_with_one_notice() {
    let mut world = World::scanned();
    world.set_count(0x4141_4141);
    let mut notices = Vec::new();
    for _ in 0..100 {
        let (hints, notice) = world.look();
        assert_eq!(hints.depth, 0);
        notices.extend(notice);
    }
    let wrong = Notice::Wrong(COUNT, Implausible::Values);
    assert_eq!(notices, [wrong]);

    // From now on it is treated as any guest, and not scanned again.
    world.set_count(1);
    world.enter_kernel(LOOP);
    assert_eq!(world.hints(), (0, false));
    world.vcpu.interrupts = false;
    assert_eq!(world.hints(), (0, true));
    world.now += 1_000_000 * MS;
    let _ = world.look();
    assert!(world.requests.try_recv().is_err());
}

#[test]
fn without_scans_a_guest_with_a_count_is_treated_as_any_guest() {
    let mut world = World::new();
    world.inferred = InferredHints::new(2);
    assert!(!world.inferred.is_on());
    world.inferred.start_without_scans();
    assert!(world.inferred.is_on());
    assert_eq!(world.inferred.progress(), Some(Progress::NoSearch));
    world.set_count(1);
    for seconds in 0..100 {
        world.now += 1_000 * MS;
        world = world.enter_user_mode();
        assert_eq!(world.hints(), (0, false), "user mode, {seconds} s");
        world.enter_kernel(LOOP);
        world.vcpu.interrupts = seconds % 2 == 0;
        assert_eq!(world.hints(), (0, !world.vcpu.interrupts));
    }
    assert_eq!(world.inferred.progress(), Some(Progress::NoSearch));
}

#[test]
fn registers_that_cannot_be_read_switch_all_off_with_one_notice() {
    let mut world = World::new();
    assert!(world.inferred.is_on());
    world.vcpu.segments = Err(Unreadable);
    assert_eq!(world.look().1, Some(Notice::Unreadable));
    assert!(!world.inferred.is_on());
    assert_eq!(world.look().1, None);
}

#[test]
fn a_guest_without_a_count_gets_one_notice() {
    let mut world = World::new();
    world.write(TEXT_AT, &[0; 0x7000]);
    let mut notices = Vec::new();
    for second in 0..1_000 {
        let _ = world.hints();
        notices.extend(world.scan());
        world.now += 1_000 * MS;
        // Another kernel without a count now and then.
        world.vcpu.entry = Ok(Some(TEXT + second / 300));
    }
    assert_eq!(notices, [Notice::NotFound]);
}

#[test]
fn a_scan_finds_nothing_in_text_that_has_changed_since() {
    let mut world = World::new();
    let _ = world.look();
    assert_eq!(world.scan(), Some(Notice::Found(COUNT)));
    world.write(TEXT_AT, &[0; 0x7000]);
    world.set_count(1);
    world.enter_kernel(TEXT);
    assert_eq!(world.hints(), (0, false));
}

/// Addresses that are interesting in a hostile guest.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0..0x1_0000u64).prop_map(|ahead| TEXT.wrapping_add(ahead)),
        (0..0x1_0000u64).prop_map(|ahead| GS.wrapping_add(ahead)),
        (0..64u64).prop_map(|back| u64::MAX - back),
        (0..64u64).prop_map(|back| MEMORY.wrapping_add(32).wrapping_sub(back)),
        0..64u64,
    ]
}

/// What a hostile guest does before a look.
#[derive(Clone, Debug)]
struct Step {
    rip: u64,
    gs_base: u64,
    entry: Option<u64>,
    interrupts: bool,
    is_cpl3: bool,
    /// A new translation of a page.
    page: (u64, u64),
    /// What it writes where.
    word: (u64, u32),
    time: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let registers = (address(), address(), proptest::option::of(address()));
    let flags = (any::<bool>(), any::<bool>(), 0..200 * MS);
    let values = (
        (address(), 0..4u64 << 10),
        (0..MEMORY / 4, prop_oneof![0..4u32, any::<u32>()]),
    );
    (registers, flags, values).prop_map(|((rip, gs_base, entry), flags, (page, word))| Step {
        rip,
        gs_base,
        entry,
        interrupts: flags.0,
        is_cpl3: flags.1,
        page,
        word,
        time: flags.2,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_guest_gets_hints_of_its_own_and_few_notices(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut world = World::scanned();
        let mut notices = 0;
        for step in steps {
            world.vcpu.rip = step.rip;
            world.vcpu.segments = Ok(Segments {
                gs_base: step.gs_base,
                is_cpl3: step.is_cpl3,
            });
            world.vcpu.entry = Ok(step.entry);
            world.vcpu.interrupts = step.interrupts;
            world.vcpu.pages.insert(step.page.0 >> 12, step.page.1);
            world.write(step.word.0 * 4, &step.word.1.to_le_bytes());
            world.set_count(step.word.1);
            world.now += step.time;
            let (hints, notice) = world.look();
            prop_assert!(hints.depth <= 1 && hints.wait.is_none() && hints.is_guess);
            notices += usize::from(notice.is_some());
            if let Ok(request) = world.requests.try_recv() {
                // What a scan finds in such a guest may be anything.
                let scanned = Scanned {
                    request,
                    finding: Finding::Found(step.gs_base),
                    witness: Some(step.rip),
                };
                notices += usize::from(world.inferred.scanned(&scanned).is_some());
            }
        }
        prop_assert!(notices <= 2 * MAX_COUNTS);
    }
}

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
    let finding = hints.linked(request).expect("no scan is needed");
    let scanned = Scanned {
        request,
        finding,
        witness: None,
    };
    let notice = (0..32).find_map(|_| hints.scanned(&scanned));
    assert_eq!(notice, Some(Notice::OtherSymbols));
}
