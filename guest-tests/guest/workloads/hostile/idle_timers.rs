//! All vCPUs go idle for `period` again and again, and do nothing else.

use crate::cpu::Cpu;
use crate::workloads::run_length::end_time;
use crate::{clock, config, idle};

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    let period = clock::from_ns(config::get().period);
    while clock::now() < end {
        let until = clock::now().saturating_add(period).min(end);
        idle::sleep_while(cpu, || true, until);
        cpu.stats.iterations.add(1);
    }
}
