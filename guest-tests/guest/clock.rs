//! Guest time: the TSC, and nanoseconds made from it.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::console;
use crate::exit;
use crate::port;
use crate::testdev::{EXIT_USAGE, PORT_TSC_KHZ};

const NS_PER_MS: u64 = 1_000_000;

/// Nanoseconds per TSC tick, and ticks per nanosecond, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(0);
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(0);

/// Reads the frequency from the machine, or else from the command line.
pub fn init(given_khz: Option<u64>) {
    let khz = port::in32(PORT_TSC_KHZ).map(u64::from).or(given_khz);
    let Some(khz) = khz.filter(|&khz| khz > 0) else {
        console::line(format_args!(
            "guest: the TSC's frequency is unknown; give tsc_khz= on the command line"
        ));
        exit::end(EXIT_USAGE);
    };
    NS_PER_TICK.store((NS_PER_MS << 32) / khz, Relaxed);
    TICKS_PER_NS.store((khz << 32) / NS_PER_MS, Relaxed);
}

/// The TSC now.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: RDTSC has no preconditions where CR4.TSD is clear, and `entry.rs` clears it.
    unsafe { _rdtsc() }
}

fn scale(value: u64, factor: &AtomicU64) -> u64 {
    ((u128::from(value) * u128::from(factor.load(Relaxed))) >> 32) as u64
}

/// Converts TSC ticks to nanoseconds.
#[inline]
pub fn to_ns(ticks: u64) -> u64 {
    scale(ticks, &NS_PER_TICK)
}

/// Converts nanoseconds to TSC ticks.
pub fn from_ns(ns: u64) -> u64 {
    scale(ns, &TICKS_PER_NS)
}
