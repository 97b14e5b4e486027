//! Work of a known length: a counted loop, so that time in which the vCPU does not run is not counted
//! as work.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock;

const TRIES: u32 = 32;
const SAMPLE: u64 = 1 << 13;

/// TSC ticks that [`SAMPLE`] iterations take.
static TICKS: AtomicU64 = AtomicU64::new(1);

/// Measures the loop. The shortest of several tries counts, because any of them may be interrupted.
pub fn calibrate() {
    let ticks = (0..TRIES).map(|_| {
        let start = clock::now();
        spin(SAMPLE);
        clock::now() - start
    });
    TICKS.store(ticks.min().unwrap_or(1).max(1), Relaxed);
}

/// The number of iterations that takes `ns` nanoseconds of CPU time.
pub fn iterations(ns: u64) -> u64 {
    let samples = u128::from(clock::from_ns(ns)) * u128::from(SAMPLE);
    (samples / u128::from(TICKS.load(Relaxed))) as u64
}

/// Works for so many iterations: a chain of multiplications that each depend on the one before, so that
/// neither a busy sibling hyperthread nor the position of the code in memory changes the pace much.
/// Never inlined, so that the work is the code that was measured.
#[inline(never)]
pub fn spin(iterations: u64) {
    if iterations > 0 {
        // SAFETY: counts a register down.
        unsafe {
            asm!(
                ".p2align 6",
                "2:",
                "imul {1}, {1}",
                "imul {1}, {1}",
                "imul {1}, {1}",
                "imul {1}, {1}",
                "dec {0}",
                "jnz 2b",
                inout(reg) iterations => _, inout(reg) 3u64 => _, options(nomem, nostack),
            );
        }
    }
}
