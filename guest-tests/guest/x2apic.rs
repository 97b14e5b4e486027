//! The local APIC through its model-specific registers (x2APIC mode). After the switch the page that
//! `apic.rs` uses no longer exists.

use crate::layout::LOCAL_APIC;
use crate::ring0;
use crate::vectors::VECTOR_TIMER;

const MSR_APIC_BASE: u32 = 0x1b;
const BOOT_PROCESSOR: u64 = 1 << 8;
const X2APIC: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;

const TIMER: u32 = 0x832;
const TIMER_INITIAL: u32 = 0x838;
const TIMER_DIVIDE: u32 = 0x83e;
const MASKED: u64 = 1 << 16;
const TIMER_PERIODIC: u64 = 1 << 17;
const DIVIDE_BY_1: u64 = 0xb;

fn write(register: u32, value: u64) {
    // SAFETY: a register of the local APIC of this module; none of them affects memory.
    unsafe { ring0::write_msr(register, value) };
}

/// Switches this vCPU's APIC to x2APIC mode; `boot`: it is the vCPU that started first.
pub fn switch_on(boot: bool) {
    let boot = if boot { BOOT_PROCESSOR } else { 0 };
    write(MSR_APIC_BASE, LOCAL_APIC | ENABLE | X2APIC | boot);
}

/// Starts the timer with this period, which the hypervisor may lengthen, and masks its interrupts.
pub fn start_masked_periodic_timer(ns: u32) {
    write(TIMER, TIMER_PERIODIC | MASKED | u64::from(VECTOR_TIMER));
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(TIMER_INITIAL, ns.into());
}

/// Stops the timer.
pub fn stop_timer() {
    write(TIMER_INITIAL, 0);
}
