//! vCPU 0 wakes all other vCPUs without a pause and without cause. They halt again at once.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use crate::abi::DOORBELL_WAKE;
use crate::cpu::Cpu;
use crate::vectors::VECTOR_WAKE;
use crate::workloads::run_length::end_time;
use crate::{apic, clock, hints, ring0, smp};

/// 1 when the storm has ended.
static OVER: AtomicU32 = AtomicU32::new(0);

/// By interrupts, to all at once.
pub fn interrupts(cpu: &Cpu) {
    storm(cpu, |_| apic::send_to_others(VECTOR_WAKE));
}

/// By the wake doorbell, one after the other.
pub fn wake_ups(cpu: &Cpu) {
    storm(cpu, |target| hints::ring(DOORBELL_WAKE, target));
}

fn storm(cpu: &Cpu, wake: impl Fn(u32)) {
    if cpu.index() != 0 {
        return halt_until_over(cpu);
    }
    let end = end_time();
    let mut targets = (1..smp::count()).cycle();
    while clock::now() < end
        && let Some(target) = targets.next()
    {
        wake(target);
        cpu.stats.iterations.add(1);
    }
    OVER.store(1, SeqCst);
    apic::send_to_others(VECTOR_WAKE);
}

fn halt_until_over(cpu: &Cpu) {
    while OVER.load(SeqCst) == 0 {
        ring0::halt_while(&OVER, 0);
        cpu.stats.iterations.add(1);
    }
}
