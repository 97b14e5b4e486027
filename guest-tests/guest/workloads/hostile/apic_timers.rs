//! Masked timers of local APICs that run while their vCPUs are idle.

use super::idle_until::idle_until;
use crate::cpu::Cpu;
use crate::workloads::run_length::end_time;
use crate::x2apic;

/// Shorter than any hypervisor allows, so the hypervisor uses its shortest period.
const PERIOD_NS: u32 = 1000;

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    // The hypervisor may slow these timers down. One that cannot do so in xAPIC mode may end the guest.
    x2apic::switch_on(cpu.index() == 0);
    x2apic::start_masked_periodic_timer(PERIOD_NS);
    cpu.stats.iterations.add(1);
    idle_until(cpu, end);
    x2apic::stop_timer();
}
