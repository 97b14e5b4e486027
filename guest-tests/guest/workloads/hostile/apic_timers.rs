//! Timers that run while their vCPUs are idle for ever, and interrupt nobody in the guest.

use super::{end_time, sleep_until};
use crate::apic;
use crate::cpu::Cpu;

/// Shorter than any hypervisor allows, so it is the shortest that it does.
const PERIOD_NS: u32 = 1000;

pub fn run(cpu: &Cpu) {
    let end = end_time();
    apic::start_masked_periodic_timer(PERIOD_NS);
    cpu.stats.iterations.add(1);
    sleep_until(cpu, end);
    apic::start_timer(0);
}
