//! The test device: its registers, and the results that guests report by them. See
//! [`baton_abi::testdev`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use baton_abi::testdev::{
    PORT_RESULT_HI, PORT_RESULT_KEY, PORT_RESULT_LO, RESULT_SECTIONS, RESULT_WAIT_BUCKET, SECTIONS,
};
use baton_abi::wait_buckets::BUCKETS;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::clock::GuestClock;

/// Most different results that one vCPU may report; more are counted and dropped.
pub const MAX_RESULTS: usize = 1024;

/// Results that one vCPU has reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuResults {
    /// Value by key (`baton_abi::testdev::RESULT_*`); the last one written counts.
    pub values: BTreeMap<u32, u64>,
    /// Results dropped because there were too many.
    pub dropped: u64,
}

/// A critical section of a vCPU, in `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// When the vCPU asked for the lock.
    pub asked: u64,
    /// When the vCPU got the lock.
    pub got: u64,
    /// When the vCPU released the lock.
    pub released: u64,
}

impl Section {
    /// For how long the vCPU waited for the lock, nanoseconds.
    #[must_use]
    pub fn wait_ns(&self) -> u64 {
        self.got.saturating_sub(self.asked)
    }
}

impl VcpuResults {
    /// Removes the critical sections that the vCPU has logged, and returns them in order. `clock` is that of
    /// the vCPU's guest. Sections whose times are not in order are left out.
    pub fn take_sections(&mut self, clock: &GuestClock) -> Vec<Section> {
        let mut sections = Vec::new();
        for key in (RESULT_SECTIONS..).step_by(3).take(SECTIONS) {
            let [asked, got, released] = [0, 1, 2].map(|n| self.values.remove(&(key + n)));
            if let (Some(asked), Some(got), Some(released)) = (asked, got, released)
                && asked <= got
                && got <= released
            {
                // Differences of TSC values are exact; each conversion is not.
                let end = clock.monotonic_of(released);
                let before = |tsc| end.saturating_sub(clock.nanoseconds(released - tsc));
                sections.push(Section {
                    asked: before(asked),
                    got: before(got),
                    released: end,
                });
            }
        }
        sections
    }
}

/// Results of a guest, by vCPU index.
#[derive(Debug)]
pub struct Results {
    vcpus: Vec<Mutex<VcpuResults>>,
}

impl Results {
    /// No results from `vcpus` vCPUs yet.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            vcpus: (0..vcpus).map(|_| Mutex::default()).collect(),
        }
    }

    /// Records `value` under `key` for vCPU `index`.
    pub fn record(&self, index: u32, key: u32, value: u64) {
        let Some(vcpu) = self.vcpus.get(index as usize) else {
            return;
        };
        let mut results = vcpu.lock().unwrap_or_else(PoisonError::into_inner);
        if results.values.len() >= MAX_RESULTS && !results.values.contains_key(&key) {
            results.dropped += 1;
        } else {
            results.values.insert(key, value);
        }
    }

    /// Records the waits that vCPU `index` has counted in its memory at `address`: those buckets that are not
    /// empty. False: the counts are not in RAM, and nothing is recorded.
    pub fn record_waits(&self, index: u32, address: u64, memory: &GuestMemoryMmap) -> bool {
        let mut bytes = [0; BUCKETS * size_of::<u32>()];
        if memory
            .read_slice(&mut bytes, GuestAddress(address))
            .is_err()
        {
            return false;
        }
        let counts = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes);
        for (key, count) in (RESULT_WAIT_BUCKET..).zip(counts) {
            if count != 0 {
                self.record(index, key, u64::from(count));
            }
        }
        true
    }

    /// A copy of what vCPU `index` has reported.
    #[must_use]
    pub fn of(&self, index: u32) -> VcpuResults {
        self.vcpus
            .get(index as usize)
            .map(|vcpu| vcpu.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }
}

/// The result registers of one vCPU. A write of the high half completes a result.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResultRegisters {
    key: u32,
    low: u32,
}

impl ResultRegisters {
    /// A 32-bit write to one of the result ports. Returns key and value if the write completes a result.
    pub fn write(&mut self, port: u16, value: u32) -> Option<(u32, u64)> {
        match port {
            PORT_RESULT_KEY => self.key = value,
            PORT_RESULT_LO => self.low = value,
            PORT_RESULT_HI => {
                return Some((self.key, u64::from(value) << 32 | u64::from(self.low)));
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_half_completes_the_result() {
        let mut registers = ResultRegisters::default();
        assert_eq!(registers.write(PORT_RESULT_KEY, 5), None);
        assert_eq!(registers.write(PORT_RESULT_LO, 2), None);
        assert_eq!(registers.write(PORT_RESULT_HI, 1), Some((5, 0x1_0000_0002)));
    }

    #[test]
    fn sections_are_removed_and_those_out_of_order_dropped() {
        let clock = GuestClock::new(1_000_000, 0);
        let now = clock.guest_tsc();
        let times = [[300, 200, 100], [90, 95, 80], [70, 60, 50]];
        let mut results = VcpuResults::default();
        for (key, ago) in (RESULT_SECTIONS..).zip(times.as_flattened()) {
            results.values.insert(key, now - ago);
        }
        results.values.insert(7, 7);
        let sections = results.take_sections(&clock);
        assert_eq!(results.values, BTreeMap::from([(7, 7)]));
        let lengths = |s: &Section| (s.wait_ns(), s.released - s.got);
        let lengths: Vec<(u64, u64)> = sections.iter().map(lengths).collect();
        assert_eq!(lengths, [(100, 100), (10, 10)]);
        assert!(sections[1].released <= baton_os::sys::monotonic_ns());
        results.values.insert(RESULT_SECTIONS, now);
        assert_eq!(results.take_sections(&clock), []);
    }

    #[test]
    fn counted_waits_are_read_from_ram_and_nowhere_else() {
        let memory =
            GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 16)]).expect("memory");
        let last = GuestAddress(0x1000 + 4 * (BUCKETS as u64 - 1));
        memory.write_obj(7u32, last).expect("in RAM");
        let results = Results::new(1);
        assert!(results.record_waits(0, 0x1000, &memory));
        let key = RESULT_WAIT_BUCKET + BUCKETS as u32 - 1;
        assert_eq!(results.of(0).values, BTreeMap::from([(key, 7)]));
        for outside in [(1 << 16) - 4, u64::MAX - 3, u64::MAX] {
            assert!(!results.record_waits(0, outside, &memory), "{outside:#x}");
        }
        assert_eq!(results.of(0).values.len(), 1);
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_known_keys_still_change() {
        let results = Results::new(1);
        for key in 0..MAX_RESULTS as u32 + 10 {
            results.record(0, key, 1);
        }
        results.record(0, 0, 2);
        results.record(7, 0, 2);
        let of = results.of(0);
        assert_eq!(of.values.len(), MAX_RESULTS);
        assert_eq!(of.dropped, 10);
        assert_eq!(of.values[&0], 2);
        assert_eq!(results.of(7), VcpuResults::default());
    }
}
