//! The workload `idle`: all vCPUs idle.

use super::run_length::end_time;
use crate::clock;
use crate::cpu::Cpu;
use crate::idle;

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    let until = if end == u64::MAX { 0 } else { end };
    while until == 0 || clock::now() < end {
        idle::sleep_while(cpu, || true, until);
        cpu.stats.iterations.add(1);
    }
}
