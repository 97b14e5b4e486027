//! Each vCPU waits until the hypervisor has reported `count` times that it was stopped, or to the end.
//!
//! The report is a flag in KVM's clock structure, of which nothing else is used here.

use core::hint::spin_loop;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};

use super::run_length::end_time;
use super::totals;
use crate::cpu::{Cpu, MAX_CPUS};
use crate::{apic, clock, config, console, ring0, smp};

/// MSR_KVM_SYSTEM_TIME_NEW: where the structure is.
const MSR_CLOCK: u32 = 0x4b56_4d01;
const ENABLED: u64 = 1;
/// PVCLOCK_GUEST_STOPPED.
const STOPPED: u8 = 1 << 1;

/// A report of a shorter stop is wrong. Hypervisors may measure a little too much, so this is a tenth
/// less than the shortest stop that Baton reports.
const SHORTEST_NS: u64 = 900_000_000;

/// `struct pvclock_vcpu_time_info`.
#[repr(C, align(32))]
struct Clock {
    time: [AtomicU8; 29],
    flags: AtomicU8,
    pad: [AtomicU8; 2],
}

const _: () = assert!(offset_of!(Clock, flags) == 29 && size_of::<Clock>() == 32);

static CLOCKS: [Clock; MAX_CPUS] = [const {
    Clock {
        time: [const { AtomicU8::new(0) }; 29],
        flags: AtomicU8::new(0),
        pad: [const { AtomicU8::new(0) }; 2],
    }
}; MAX_CPUS];

/// vCPUs that wait. Not a barrier: a vCPU could still sleep in it when others have passed it.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// A stop was reported to a vCPU that was not stopped.
static WRONG: AtomicBool = AtomicBool::new(false);

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let config = config::get();
    let clock = &CLOCKS[cpu.index() as usize];
    let mut before = clock::now();
    // Addresses are physical ones here.
    let address = core::ptr::from_ref(clock) as u64;
    // SAFETY: the hypervisor writes to this structure, which is of atomics, and nowhere else.
    unsafe { ring0::write_msr(MSR_CLOCK, address | ENABLED) };
    let end = end_time();
    WAITING.fetch_add(1, SeqCst);
    if cpu.index() == 0 {
        while WAITING.load(SeqCst) < smp::count() {
            spin_loop();
        }
        console::line(format_args!("guest: waits to be stopped"));
    }
    while clock::now() < end && cpu.stats.iterations.get() < config.count {
        if config.park {
            halt(cpu, config.period);
        } else {
            spin_loop();
        }
        let mut now = clock::now();
        let mut gap = now - before;
        if clock.flags.load(SeqCst) & STOPPED != 0 {
            clock.flags.fetch_and(!STOPPED, SeqCst);
            // The stop may have come after the time was read.
            gap = gap.max(clock::now() - now);
            now = clock::now();
            if clock::to_ns(gap) < SHORTEST_NS {
                WRONG.store(true, Relaxed);
            }
            cpu.stats.iterations.add(1);
        }
        before = now;
    }
}

/// Halts for `period` nanoseconds.
fn halt(cpu: &Cpu, period: u64) {
    let ticks = cpu.ticks.load(SeqCst);
    apic::arm_timer(u32::try_from(period).unwrap_or(u32::MAX));
    while cpu.ticks.load(SeqCst) == ticks {
        ring0::halt_while(&cpu.ticks, ticks);
    }
}

/// Checks the results and prints a line.
pub fn finish() -> bool {
    let good = !WRONG.load(Relaxed);
    console::line(format_args!(
        "guest: {} reports to vCPUs that they were stopped: {}",
        totals::sum(|stats| &stats.iterations),
        if good { "right" } else { "WRONG" },
    ));
    good
}
