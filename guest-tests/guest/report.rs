//! Results: numbers through the test device.

use crate::cpu::Cpu;
use crate::port;
use crate::stats::Count;
use crate::testdev::*;

fn send(key: u32, value: u64) {
    port::out32(PORT_RESULT_KEY, key);
    port::out32(PORT_RESULT_LO, value as u32);
    port::out32(PORT_RESULT_HI, (value >> 32) as u32);
}

/// Reports what this vCPU measured. Zeroes are left out, except for the acquisitions.
pub fn results(cpu: &Cpu) {
    let stats = &cpu.stats;
    send(RESULT_ACQUISITIONS, stats.acquisitions.get());
    let others = [
        (RESULT_WAIT_MAX_NS, &stats.wait_max_ns),
        (RESULT_WAIT_SUM_NS, &stats.wait_sum_ns),
        (RESULT_ELAPSED_NS, &stats.elapsed_ns),
        (RESULT_ITERATIONS, &stats.iterations),
        (RESULT_WAIT_RINGS, &stats.wait_rings),
        (RESULT_RELEASE_RINGS, &stats.release_rings),
        (RESULT_SKIPPED, &stats.skipped),
        (RESULT_TASK_PREEMPTIONS, &stats.task_preemptions),
    ];
    let others = others.map(|(key, count)| (key, count.get()));
    let sections = (RESULT_SECTIONS..).zip(stats.sections.as_flattened().iter().map(Count::get));
    for (key, value) in others.into_iter().chain(sections) {
        if value != 0 {
            send(key, value);
        }
    }
    if stats.acquisitions.get() != 0 {
        // Addresses are physical ones here.
        send(RESULT_WAITS_AT, stats.waits.as_ptr() as u64);
    }
}

/// Reports the counter kept under the lock.
pub fn counter(value: u64) {
    send(RESULT_COUNTER, value);
}
