use std::mem::offset_of;

use baton_abi::hints::{GuestHints, HELD_ACQUIRE, HELD_RELEASE, HOLDER_UNKNOWN, HostHints};
use vm_memory::Bytes;

use super::*;
use crate::memory::GuestMemory;

const PFN: u32 = 0x200;
const MEMORY: u64 = 4 << 20;
const VCPUS: usize = 4;

struct Fixture {
    hints: HintPages,
    memory: GuestMemory,
}

impl Fixture {
    /// vCPU 1 has a page by which it spins on lock 7, held by vCPU 2.
    fn new() -> Self {
        let memory = GuestMemory::new(MEMORY).expect("memory");
        let hints = HintPages::new(VCPUS);
        hints.register(1, PFN, memory.regions()).expect("page");
        let fixture = Self { hints, memory };
        fixture.write(offset_of!(GuestHints, wait_kind), WAIT_SPIN);
        fixture.write(offset_of!(GuestHints, lock), 7);
        fixture.write(offset_of!(GuestHints, holder), 2);
        fixture.write(offset_of!(GuestHints, holder_gen), 9);
        fixture
    }

    fn write(&self, offset: usize, value: u32) {
        let address = GuestAddress(u64::from(PFN) * PAGE + offset as u64);
        self.memory
            .regions()
            .write_obj(value, address)
            .expect("in RAM");
    }

    fn read(&self, offset: usize) -> u32 {
        let address = GuestAddress(u64::from(PFN) * PAGE + offset as u64);
        self.memory.regions().read_obj(address).expect("in RAM")
    }

    fn wait(&self) -> Option<PublishedWait> {
        self.hints.snapshot(1).wait
    }
}

#[test]
fn a_whole_record_is_copied() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.wait(),
        Some(PublishedWait {
            kind: WaitKind::Spin,
            lock: 7,
            holder: 2,
            holder_releases: 9
        })
    );
    fixture.write(offset_of!(GuestHints, wait_kind), WAIT_BLOCK);
    assert_eq!(fixture.wait().expect("wait").kind, WaitKind::Block);
    fixture.write(offset_of!(GuestHints, wait_kind), WAIT_IPI);
    assert_eq!(fixture.wait().expect("wait").kind, WaitKind::Spin);
}

#[test]
fn an_odd_sequence_count_means_no_wait() {
    let fixture = Fixture::new();
    fixture.write(offset_of!(GuestHints, seq), 5);
    assert_eq!(fixture.wait(), None);
    fixture.write(offset_of!(GuestHints, seq), 6);
    assert!(fixture.wait().is_some());
}

#[test]
fn an_unknown_kind_of_wait_means_no_wait() {
    let fixture = Fixture::new();
    for kind in [0, 4, u32::MAX] {
        fixture.write(offset_of!(GuestHints, wait_kind), kind);
        assert_eq!(fixture.wait(), None);
    }
}

#[test]
fn a_holder_that_is_unknown_absent_or_the_waiter_itself_means_no_wait() {
    let fixture = Fixture::new();
    for holder in [HOLDER_UNKNOWN, VCPUS as u32, 1] {
        fixture.write(offset_of!(GuestHints, holder), holder);
        assert_eq!(fixture.wait(), None);
    }
}

#[test]
fn held_counts_depth_and_releases_apart() {
    let fixture = Fixture::new();
    let held = HELD_ACQUIRE
        .wrapping_add(HELD_ACQUIRE)
        .wrapping_add(HELD_RELEASE)
        .wrapping_add(HELD_ACQUIRE);
    fixture.write(offset_of!(GuestHints, held), held);
    let snapshot = fixture.hints.snapshot(1);
    assert_eq!((snapshot.depth, snapshot.releases), (2, 1));
}

#[test]
fn a_vcpu_without_a_page_is_neutral() {
    let fixture = Fixture::new();
    for index in [0, 99] {
        assert_eq!(fixture.hints.snapshot(index), HintSnapshot::default());
        assert_eq!(fixture.hints.idle_until_tsc(index), 0);
        fixture.hints.set_running(index, true);
        fixture.hints.set_ring(index, RING_DONATED, 1, 2);
        fixture.hints.add_steal(index, 5);
        fixture.hints.count_preemption(index);
        assert!(!fixture.hints.is_registered(index));
    }
}

#[test]
fn a_page_outside_ram_is_refused_and_the_old_one_stays() {
    let fixture = Fixture::new();
    let regions = fixture.memory.regions();
    for pfn in [(MEMORY / PAGE) as u32, u32::MAX] {
        assert_eq!(
            fixture.hints.register(1, pfn, regions),
            Err(BadHintPage::NotInRam)
        );
    }
    assert!(fixture.wait().is_some());
    assert_eq!(
        fixture.hints.register(VCPUS as u32, PFN, regions),
        Err(BadHintPage::NoSuchVcpu)
    );
    let last = (MEMORY / PAGE) as u32 - 1;
    assert_eq!(fixture.hints.register(1, last, regions), Ok(()));
}

#[test]
fn page_zero_ends_the_registration() {
    let fixture = Fixture::new();
    fixture
        .hints
        .register(1, 0, fixture.memory.regions())
        .expect("registration ended");
    assert!(!fixture.hints.is_registered(1));
    assert_eq!(fixture.wait(), None);
}

#[test]
fn the_hosts_half_is_written_where_the_abi_has_it() {
    let fixture = Fixture::new();
    let host = offset_of!(HintPage, host);
    fixture.hints.set_running(1, true);
    fixture
        .hints
        .set_ring(1, RING_DONATED | RING_DEFER, 0x1_0000_0002, 3);
    fixture.hints.add_steal(1, 40);
    fixture.hints.add_steal(1, 2);
    fixture.hints.count_preemption(1);
    assert_eq!(fixture.read(host + offset_of!(HostHints, running)), 1);
    assert_eq!(
        fixture.read(host + offset_of!(HostHints, ring)),
        RING_DONATED | RING_DEFER
    );
    assert_eq!(fixture.read(host + offset_of!(HostHints, donated_lock)), 2);
    assert_eq!(
        fixture.read(host + offset_of!(HostHints, donated_lock) + 4),
        1
    );
    assert_eq!(fixture.read(host + offset_of!(HostHints, donor)), 3);
    assert_eq!(fixture.read(host + offset_of!(HostHints, steal_ns)), 42);
    assert_eq!(fixture.read(host + offset_of!(HostHints, preemptions)), 1);
    fixture.hints.set_running(1, false);
    assert_eq!(fixture.read(host + offset_of!(HostHints, running)), 0);
}

#[test]
fn a_handed_lock_is_the_one_in_the_record_of_a_vcpu_that_does_not_wait() {
    let fixture = Fixture::new();
    assert_eq!(fixture.hints.handed_lock(1), None, "it waits for that lock");
    fixture.write(offset_of!(GuestHints, wait_kind), WAIT_NONE);
    assert_eq!(fixture.hints.handed_lock(1), Some(7));
    fixture.write(offset_of!(GuestHints, lock), 0);
    assert_eq!(fixture.hints.handed_lock(1), None);
    assert_eq!(fixture.hints.handed_lock(2), None, "it has no page");
}
