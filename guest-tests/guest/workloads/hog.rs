//! Every vCPU computes without a pause.

use super::run_length::end_time;
use crate::cpu::Cpu;
use crate::{busy, clock};

const CHUNK: u64 = 1000;

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    while clock::now() < end {
        busy::spin(CHUNK);
        cpu.stats.iterations.add(CHUNK);
    }
}
