//! The local APIC through its memory page (xAPIC mode).

use crate::layout::LOCAL_APIC;
use crate::mmio;
use crate::vectors::{VECTOR_SPURIOUS, VECTOR_TIMER};

/// End of interrupt.
pub const EOI: u64 = 0xb0;

const ID: u64 = 0x20;
const SPURIOUS: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLE: u32 = 1 << 8;
const DELIVERY_INIT: u32 = 5 << 8;
const DELIVERY_STARTUP: u32 = 6 << 8;
const ASSERT: u32 = 1 << 14;
const ALL_BUT_SELF: u32 = 3 << 18;
const TIMER_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0xb;

fn write(register: u64, value: u32) {
    // SAFETY: a register of the page, which `entry.rs` maps uncached.
    unsafe { mmio::write(LOCAL_APIC + register, value) };
}

fn read(register: u64) -> u32 {
    // SAFETY: as `write`.
    unsafe { mmio::read(LOCAL_APIC + register) }
}

/// This vCPU's APIC id.
pub fn id() -> u32 {
    read(ID) >> 24
}

/// Enables the local APIC.
pub fn enable() {
    write(SPURIOUS, ENABLE | u32::from(VECTOR_SPURIOUS));
}

fn command(target: u32, command: u32) {
    write(COMMAND_HIGH, target << 24);
    write(COMMAND_LOW, command);
}

/// Interrupts the vCPU of this index.
pub fn send(target: u32, vector: u8) {
    command(target, ASSERT | u32::from(vector));
}

/// Interrupts all vCPUs but the one that executes this.
pub fn send_to_others(vector: u8) {
    command(0, ALL_BUT_SELF | ASSERT | u32::from(vector));
}

/// Starts the vCPU of this index in real mode at `page` (a page number below 256).
///
/// The pauses of the INIT-SIPI-SIPI protocol of real processors are left out, and so is the second SIPI:
/// KVM keeps both events in order until the target handles them.
pub fn start(target: u32, page: u8) {
    command(target, ASSERT | DELIVERY_INIT);
    command(target, ASSERT | DELIVERY_STARTUP | u32::from(page));
}

/// Arms the one-shot timer. KVM's timer clock runs at 1 GHz, so `ns` is its count.
pub fn arm_timer(ns: u32) {
    set_timer_vector(VECTOR_TIMER);
    start_timer(ns);
}

/// Sets the vector of the interrupt that the one-shot timer raises.
pub fn set_timer_vector(vector: u8) {
    write(TIMER, vector.into());
    write(TIMER_DIVIDE, DIVIDE_BY_1);
}

/// Starts the one-shot timer, again if it runs already; 0 stops it.
pub fn start_timer(ns: u32) {
    write(TIMER_INITIAL, ns);
}

/// Switches the timer to TSC-deadline mode, in which its MSR arms it.
pub fn use_deadline_timer() {
    write(TIMER, TIMER_DEADLINE | u32::from(VECTOR_TIMER));
}
