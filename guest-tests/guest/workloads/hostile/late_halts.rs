//! All vCPUs halt for `period` again and again. A host that does not notice a halt leaves the vCPU its CPU
//! meanwhile.

use core::sync::atomic::Ordering::SeqCst;

use crate::cpu::Cpu;
use crate::workloads::run_length::end_time;
use crate::{apic, clock, config, ring0};

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    let period = u32::try_from(config::get().period)
        .unwrap_or(u32::MAX)
        .max(1);
    while clock::now() < end {
        let before = cpu.ticks.load(SeqCst);
        apic::arm_timer(period);
        while cpu.ticks.load(SeqCst) == before {
            ring0::halt_while(&cpu.ticks, before);
        }
        cpu.stats.iterations.add(1);
    }
}
