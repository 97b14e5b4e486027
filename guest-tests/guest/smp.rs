//! Starting the other vCPUs: INIT, SIPI, one after the other.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicPtr, AtomicU32};

use crate::config;
use crate::cpu::{Cpu, MAX_CPUS};
use crate::layout::TRAMPOLINE;
use crate::testdev::{EXIT_FAULT, EXIT_USAGE, PORT_INDEX, PORT_VCPUS};
use crate::{apic, clock, console, exit, hints, idle, port};

/// How long a vCPU may take to start before the guest ends with an error. Long, because on a crowded
/// host a vCPU is one among many.
const START_LIMIT_NS: u64 = 30_000_000_000;

static COUNT: AtomicU32 = AtomicU32::new(1);
static STARTING: AtomicU32 = AtomicU32::new(0);
/// The block of the vCPU being started, for the entry code; written before each SIPI.
pub static STARTING_CPU: AtomicPtr<Cpu> = AtomicPtr::new(core::ptr::null_mut());

unsafe extern "C" {
    /// First byte of the real-mode trampoline (`entry.rs`).
    static trampoline_start: u8;
    /// One past its last byte.
    static trampoline_end: u8;
}

/// Number of vCPUs.
pub fn count() -> u32 {
    COUNT.load(Relaxed)
}

/// All vCPUs of the guest.
pub fn cpus() -> impl Iterator<Item = &'static Cpu> {
    (0..count()).map(Cpu::get)
}

/// Index of the vCPU being started.
pub fn starting() -> u32 {
    STARTING.load(SeqCst)
}

/// First steps of every vCPU.
pub fn init_this(cpu: &Cpu, index: u32) {
    cpu.set_index(index);
    if index == 0 {
        hints::init();
    }
    // The guest derives indices from APIC ids; the machine must number its vCPUs in the same way.
    let found = port::in32(PORT_INDEX).unwrap_or_else(apic::id);
    if found != index {
        console::line(format_args!(
            "guest: the vCPU with APIC id {index} has index {found}; they must be the same"
        ));
        exit::end(EXIT_FAULT);
    }
    apic::enable();
    hints::register(cpu);
}

/// Reports to vCPU 0 that this one is up.
pub fn report_online(cpu: &Cpu) {
    cpu.online.store(1, SeqCst);
    idle::wake(0);
}

/// Starts vCPUs 1 and up.
pub fn start_others(cpu: &Cpu) {
    let vcpus = port::in32(PORT_VCPUS).map(u64::from).or(config::get().cpus);
    let vcpus = vcpus.unwrap_or(1);
    if vcpus == 0 || vcpus > MAX_CPUS as u64 {
        console::line(format_args!(
            "guest: {vcpus} vCPUs; it can use 1 to {MAX_CPUS}"
        ));
        exit::end(EXIT_USAGE);
    }
    COUNT.store(vcpus as u32, SeqCst);
    place_trampoline();
    for index in 1..count() {
        start(cpu, index);
    }
}

fn start(cpu: &Cpu, index: u32) {
    let target = Cpu::get(index);
    STARTING.store(index, SeqCst);
    STARTING_CPU.store((&raw const *target).cast_mut(), SeqCst);
    apic::start(index, (TRAMPOLINE >> 12) as u8);
    let limit = clock::now() + clock::from_ns(START_LIMIT_NS);
    idle::wait_while(cpu, || target.online.load(SeqCst) == 0, limit);
    if target.online.load(SeqCst) == 0 {
        console::line(format_args!("guest: vCPU {index} does not start"));
        exit::end(EXIT_FAULT);
    }
}

fn place_trampoline() {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: the code is linked for this page, which contains nothing that is still needed: the boot
    // parameters have been read.
    unsafe {
        core::ptr::copy_nonoverlapping(start, TRAMPOLINE as *mut u8, end as usize - start as usize);
    }
}
