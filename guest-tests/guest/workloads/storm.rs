//! Every vCPU rings the wait doorbell without a pause and without cause.

use super::run_length::end_time;
use crate::abi::DOORBELL_WAIT;
use crate::cpu::Cpu;
use crate::{clock, hints};

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    while clock::now() < end {
        hints::ring(DOORBELL_WAIT, 0);
        cpu.stats.iterations.add(1);
    }
}
