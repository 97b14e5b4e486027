//! The guest's side of the hint ABI: one page per vCPU, and the doorbells.
//!
//! Ordering: a vCPU is stopped when the host reads what it wrote, so program order is enough, and
//! on x86 that takes no more than keeping the compiler from moving the accesses.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, compiler_fence};

use crate::abi::{self, HintPage};
use crate::config;
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
/// The host runs a holder on its waiters' budgets.
static PROXY: AtomicBool = AtomicBool::new(false);

/// A field of the page of the vCPU with this index, as an atomic.
macro_rules! field {
    ($atomic:ty, $index:expr, $half:ident . $name:ident) => {{
        let page = PAGES[$index as usize].0.get();
        // SAFETY: a field of a static, aligned; the host and all vCPUs access it atomically.
        unsafe { <$atomic>::from_ptr(&raw mut (*page).$half.$name) }
    }};
}

/// Looks for a host that understands hints.
pub fn init() {
    let present = port::in32(abi::PORT_MAGIC) == Some(abi::MAGIC);
    let features = port::in32(abi::PORT_FEATURES).unwrap_or(0);
    let version_fits = features & 0xffff >= abi::VERSION;
    // Without an exact `running` word, every waiter would ring for every holder.
    let running = features >> 16 & abi::FEATURE_RUNNING != 0;
    PRESENT.store(present && version_fits, Relaxed);
    PROXY.store(features >> 16 & abi::FEATURE_PROXY != 0, Relaxed);
    REGISTERED.store(
        present && version_fits && running && config::get().hints,
        Relaxed,
    );
}

/// Whether doorbells are answered.
pub fn present() -> bool {
    PRESENT.load(Relaxed)
}

/// Whether vCPUs have registered pages, that is, whether hints are on.
pub fn on() -> bool {
    REGISTERED.load(Relaxed)
}

/// Whether it helps to ring for a holder that does not run.
pub fn proxied() -> bool {
    PROXY.load(Relaxed)
}

/// Registers this vCPU's page if hints are on.
pub fn register(cpu: &Cpu) {
    if on() {
        let page = PAGES[cpu.index() as usize].0.get() as u64;
        port::out32(abi::PORT_HINT_PAGE, (page >> 12) as u32);
    }
}

/// Rings.
pub fn ring(reason: u32, argument: u32) {
    port::out32(abi::PORT_DOORBELL, abi::doorbell(reason, argument));
}

/// Says when this vCPU wants to wake from the idle doorbell by itself; 0 for never.
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

/// Called before a lock is taken: who is about to have it, or queues for it, is as much in the others'
/// way when it loses its CPU as who has it.
#[inline(always)]
pub fn takes<M: Mode>(cpu: &Cpu) {
    if M::HINTS {
        add_held(cpu, abi::HELD_ACQUIRE);
    }
}

/// Called when a lock has been released: rings if the host asked for it. `successor` tells, if it
/// is known, which vCPU the lock went to.
#[inline(always)]
pub fn released<M: Mode>(cpu: &Cpu, lock: u64, successor: impl FnOnce() -> Option<u32>) {
    if M::HINTS {
        let held = add_held(cpu, abi::HELD_RELEASE);
        // The host changes `ring` only while this vCPU is outside the guest; an exit orders memory
        // accesses, so the compiler is all that has to be kept from moving the load up.
        compiler_fence(SeqCst);
        let ring = field!(AtomicU32, cpu.index(), host.ring).load(Relaxed);
        if ring != 0 {
            answer(cpu, lock, held, ring, successor());
        }
    }
}

/// Called when a mutex has been released: rings if the host asked for it. `next` is the vCPU of who
/// has it now, or of the first of those who wait for it. A mutex does not count in the depth of
/// `held`, but its release does: who spins for it and is preempted must not carry its former owner.
#[inline(always)]
pub fn mutex_released<M: Mode>(cpu: &Cpu, mutex: u64, next: impl FnOnce() -> Option<u32>) {
    if M::HINTS {
        add_held(cpu, 1 << abi::HELD_DEPTH_BITS);
        compiler_fence(SeqCst);
        let ring = field!(AtomicU32, cpu.index(), host.ring).load(Relaxed);
        if ring & abi::RING_DONATED != 0 {
            let next = next();
            // Who waits for a task of this vCPU waits for this vCPU as before.
            if next != Some(cpu.index()) {
                answer(cpu, mutex, 1, abi::RING_DONATED, next);
            }
        }
    }
}

#[cold]
fn answer(cpu: &Cpu, lock: u64, held: u32, asked: u32, successor: Option<u32>) {
    let donated_lock = field!(AtomicU64, cpu.index(), host.donated_lock).load(Relaxed);
    let depth = held & ((1 << abi::HELD_DEPTH_BITS) - 1);
    let donated = asked & abi::RING_DONATED != 0 && donated_lock == lock;
    let deferred = asked & abi::RING_DEFER != 0 && depth == 0;
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
    // What the record was based on is looked at again after it is out.
    compiler_fence(SeqCst);
}

/// Says for whom this vCPU spins.
pub fn waiting(cpu: &Cpu, lock: u64, holder: u32, holder_gen: u32) {
    write_record(cpu, abi::WAIT_SPIN, lock, holder, holder_gen);
}

/// Says for whom this vCPU is about to idle: that of the mutex's owner, or of the waiter whose turn is
/// before.
pub fn sleeping(cpu: &Cpu, mutex: u64, holder: u32) {
    write_record(cpu, abi::WAIT_BLOCK, mutex, holder, releases(holder));
}

/// Says that this vCPU waits for nobody.
pub fn not_waiting(cpu: &Cpu) {
    write_record(cpu, abi::WAIT_NONE, 0, 0, 0);
}

/// Fills this vCPU's half of the page with whatever `next` gives, sequence count included.
pub fn scribble(cpu: &Cpu, mut next: impl FnMut() -> u64) {
    let start = PAGES[cpu.index() as usize].0.get().cast::<u64>();
    for at in 0..size_of::<abi::GuestHints>() / size_of::<u64>() {
        // SAFETY: within the guest's half of the page, aligned.
        unsafe { AtomicU64::from_ptr(start.add(at)) }.store(next(), Relaxed);
    }
}
