//! Idling until a time, whatever wakes the vCPU meanwhile.

use crate::cpu::Cpu;
use crate::{clock, idle};

/// Idles until this TSC value; `u64::MAX` is for ever.
pub fn idle_until(cpu: &Cpu, end: u64) {
    let until = if end == u64::MAX { 0 } else { end };
    while clock::now() < end {
        idle::sleep_while(cpu, || true, until);
    }
}
