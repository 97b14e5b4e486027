//! The guest's side of the hint ABI: one page per vCPU, and the doorbells.
//!
//! Ordering: the host reads what a vCPU wrote only while that vCPU is stopped, so program order is
//! enough. On x86 this only requires that the compiler does not move the accesses.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, compiler_fence};

use crate::abi::{self, HintPage};
use crate::config::{self, Hints};
use crate::cpu::{Cpu, MAX_CPUS};
use crate::lock::Mode;
use crate::port;

#[repr(C, align(4096))]
struct Page(UnsafeCell<HintPage>);

// SAFETY: every access is atomic.
unsafe impl Sync for Page {}

static PAGES: [Page; MAX_CPUS] = [const { Page(UnsafeCell::new(empty())) }; MAX_CPUS];

const fn empty() -> HintPage {
    // SAFETY: integers only, for which all zeroes is a value.
    unsafe { core::mem::zeroed() }
}

static PRESENT: AtomicBool = AtomicBool::new(false);
static REGISTERED: AtomicBool = AtomicBool::new(false);
/// The host runs lock holders on their waiters' budgets.
static PROXY: AtomicBool = AtomicBool::new(false);

/// A field of the page of the vCPU with this index, as an atomic.
macro_rules! field {
    ($atomic:ty, $index:expr, $half:ident . $name:ident) => {{
        let page = PAGES[$index as usize].0.get();
        // SAFETY: a field of a static, aligned; the host and all vCPUs access it atomically.
        unsafe { <$atomic>::from_ptr(&raw mut (*page).$half.$name) }
    }};
}

/// Detects a host that understands hints, unless the guest is to behave as an unmodified kernel.
pub fn init() {
    let wanted = config::get().hints;
    if wanted == Hints::Stock {
        return;
    }
    let present = port::in32(abi::PORT_MAGIC) == Some(abi::MAGIC);
    let features = port::in32(abi::PORT_FEATURES).unwrap_or(0);
    let version_fits = features & 0xffff >= abi::VERSION;
    // Without an exact `running` word, every waiter would ring for every holder.
    let running = features >> 16 & abi::FEATURE_RUNNING != 0;
    PRESENT.store(present && version_fits, Relaxed);
    PROXY.store(features >> 16 & abi::FEATURE_PROXY != 0, Relaxed);
    REGISTERED.store(
        present && version_fits && running && wanted == Hints::On,
        Relaxed,
    );
}

/// Whether the guest has found a host with doorbells.
pub fn present() -> bool {
    PRESENT.load(Relaxed)
}

/// Whether hints are on, so that vCPUs have registered pages.
pub fn on() -> bool {
    REGISTERED.load(Relaxed)
}

/// Whether the host reacts to a ring for a holder that does not run.
pub fn host_proxies() -> bool {
    PROXY.load(Relaxed)
}

/// Registers this vCPU's page if hints are on.
pub fn register(cpu: &Cpu) {
    if on() {
        let page = PAGES[cpu.index() as usize].0.get() as u64;
        port::out32(abi::PORT_HINT_PAGE, (page >> 12) as u32);
    }
}

/// Rings the doorbell.
pub fn ring(reason: u32, argument: u32) {
    port::out32(abi::PORT_DOORBELL, abi::doorbell(reason, argument));
}

/// Publishes the TSC value at which the host ends this vCPU's idle doorbell; 0 for never.
pub fn idle_until(cpu: &Cpu, tsc: u64) {
    field!(AtomicU64, cpu.index(), guest.idle_until_tsc).store(tsc, Relaxed);
}

/// Whether the vCPU of this index is on a host CPU.
#[inline(always)]
pub fn running(index: u32) -> bool {
    field!(AtomicU32, index, host.running).load(Relaxed) != 0
}

/// Locks that the vCPU of this index has released so far, modulo 2^24.
#[inline(always)]
pub fn releases(index: u32) -> u32 {
    field!(AtomicU32, index, guest.held).load(Relaxed) >> abi::HELD_DEPTH_BITS
}

#[inline(always)]
fn add_held(cpu: &Cpu, change: u32) -> u32 {
    let held = field!(AtomicU32, cpu.index(), guest.held);
    let now = held.load(Relaxed).wrapping_add(change);
    // Release: the store stays behind those of the lock itself.
    held.store(now, Release);
    now
}

/// Called before a lock is taken. A vCPU that is about to have the lock, or queues for it, delays the
/// others as much as its holder does when it loses its CPU.
#[inline(always)]
pub fn acquiring<M: Mode>(cpu: &Cpu) {
    if M::HINTS {
        add_held(cpu, abi::HELD_ACQUIRE);
    }
}

/// Called after a lock was released: rings if the host requested it. `successor` returns the vCPU to
/// which the lock went, if that is known.
#[inline(always)]
pub fn released<M: Mode>(cpu: &Cpu, lock: u64, successor: impl FnOnce() -> Option<u32>) {
    if M::HINTS {
        let held = add_held(cpu, abi::HELD_RELEASE);
        // The host changes `ring` only while this vCPU is outside the guest, and an exit orders memory
        // accesses. So only the compiler must not move the load up.
        compiler_fence(SeqCst);
        let ring = field!(AtomicU32, cpu.index(), host.ring).load(Relaxed);
        if ring != 0 {
            ring_release(cpu, lock, held, ring, successor());
        }
    }
}

/// Called after a mutex was released: rings if the host requested it. `next` returns the vCPU of the new
/// owner, or of the first waiter. A mutex does not count in the depth of `held`, but its release is
/// counted, so that a vCPU which is preempted while it spins does not carry the former owner.
#[inline(always)]
pub fn mutex_released<M: Mode>(cpu: &Cpu, mutex: u64, next: impl FnOnce() -> Option<u32>) {
    if M::HINTS {
        add_held(cpu, 1 << abi::HELD_DEPTH_BITS);
        compiler_fence(SeqCst);
        let ring = field!(AtomicU32, cpu.index(), host.ring).load(Relaxed);
        if ring & abi::RING_DONATED != 0 {
            let next = next();
            // A vCPU that waits for another task of this vCPU waits for this vCPU as before.
            if next != Some(cpu.index()) {
                ring_release(cpu, mutex, 1, abi::RING_DONATED, next);
            }
        }
    }
}

/// Rings for a release if it is one that the host requested; `requested` are the bits of `ring`.
#[cold]
fn ring_release(cpu: &Cpu, lock: u64, held: u32, requested: u32, successor: Option<u32>) {
    let donated_lock = field!(AtomicU64, cpu.index(), host.donated_lock).load(Relaxed);
    let depth = held & ((1 << abi::HELD_DEPTH_BITS) - 1);
    let donated = requested & abi::RING_DONATED != 0 && donated_lock == lock;
    let deferred = requested & abi::RING_DEFER != 0 && depth == 0;
    if donated || deferred {
        cpu.stats.release_rings.add(1);
        ring(abi::DOORBELL_RELEASE, successor.map_or(0, |vcpu| vcpu + 1));
    }
}

/// Writes this vCPU's record.
fn write_record(cpu: &Cpu, kind: u32, lock: u64, holder: u32, holder_gen: u32) {
    let index = cpu.index();
    let seq = field!(AtomicU32, index, guest.seq);
    let even = seq.load(Relaxed);
    seq.store(even.wrapping_add(1), Relaxed);
    compiler_fence(SeqCst);
    field!(AtomicU32, index, guest.wait_kind).store(kind, Relaxed);
    field!(AtomicU64, index, guest.lock).store(lock, Relaxed);
    field!(AtomicU32, index, guest.holder).store(holder, Relaxed);
    field!(AtomicU32, index, guest.holder_gen).store(holder_gen, Relaxed);
    compiler_fence(SeqCst);
    seq.store(even.wrapping_add(2), Relaxed);
    // The caller checks again after this that the record is true.
    compiler_fence(SeqCst);
}

/// Publishes for which vCPU this one spins.
pub fn waiting(cpu: &Cpu, lock: u64, holder: u32, holder_gen: u32) {
    write_record(cpu, abi::WAIT_SPIN, lock, holder, holder_gen);
}

/// Publishes for which vCPU this one is about to idle: that of the mutex's owner, or of the waiter that
/// is next ahead in the queue.
pub fn sleeping(cpu: &Cpu, mutex: u64, holder: u32) {
    write_record(cpu, abi::WAIT_BLOCK, mutex, holder, releases(holder));
}

/// Publishes that this vCPU waits for no other.
pub fn not_waiting(cpu: &Cpu) {
    write_record(cpu, abi::WAIT_NONE, 0, 0, 0);
}

/// Fills the guest's half of this vCPU's page with values from `next`, the sequence count included.
pub fn scribble(cpu: &Cpu, mut next: impl FnMut() -> u64) {
    let start = PAGES[cpu.index() as usize].0.get().cast::<u64>();
    for at in 0..size_of::<abi::GuestHints>() / size_of::<u64>() {
        // SAFETY: within the guest's half of the page, aligned.
        unsafe { AtomicU64::from_ptr(start.add(at)) }.store(next(), Relaxed);
    }
}
