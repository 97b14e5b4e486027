//! What is recorded while guests run, and the rings that carry it to the writer.
//!
//! Each ring has one producer and one consumer, is as long as it will ever be, and takes records of
//! one size: recording is a few stores, never an allocation, a lock or a system call. The policy's
//! ring is written under the pool's lock, which makes its many threads one producer; each executor
//! has a ring of its own for what it does outside that lock. A full ring drops, and says how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};
use vcpu_sched::{CpuId, Event, Ns, VcpuId};

/// Records that a ring holds: half a second of a decision every 8 us.
pub(crate) const RING: usize = 1 << 16;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// When, ns of `CLOCK_MONOTONIC`.
    pub(crate) at: Ns,
    pub(crate) what: What,
}

/// What a record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The policy decided.
    Policy(Event),
    /// The vCPU has left the policy.
    Gone(VcpuId),
    /// A vCPU came back to its executor.
    Exit {
        /// The CPU of the executor.
        cpu: CpuId,
        /// The vCPU.
        vcpu: VcpuId,
        /// Why it came back.
        kind: ExitKind,
    },
    /// This many records before this one did not fit.
    Lost(u64),
}

/// Why a vCPU came back to its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitKind {
    /// For a device, or something else that the VMM has handled.
    Device,
    /// A signal, or a request to leave the guest at once.
    Interrupted,
    /// The guest has rung the doorbell.
    Doorbell,
    /// A single step is over.
    Debug,
    /// The vCPU halts.
    Halted,
    /// The guest has ended.
    Ended,
}

impl ExitKind {
    /// All of them; each one's place is its number.
    pub(crate) const ALL: [Self; 6] = [
        Self::Device,
        Self::Interrupted,
        Self::Doorbell,
        Self::Debug,
        Self::Halted,
        Self::Ended,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Interrupted => "interrupted",
            Self::Doorbell => "doorbell",
            Self::Debug => "debug",
            Self::Halted => "halted",
            Self::Ended => "ended",
        }
    }
}

/// The end of a ring that records.
#[derive(Debug)]
pub struct Port {
    ring: Producer<Record>,
    /// Dropped since the last record that fitted.
    missed: u64,
    /// Dropped by all ports of the trace.
    lost: Arc<AtomicU64>,
}

impl Port {
    /// A ring for `records`; what it drops is added to `lost`.
    pub(crate) fn new(records: usize, lost: &Arc<AtomicU64>) -> (Self, Consumer<Record>) {
        let (ring, consumer) = RingBuffer::new(records);
        (
            Self {
                ring,
                missed: 0,
                lost: Arc::clone(lost),
            },
            consumer,
        )
    }

    /// Adds a record of what happened at `at` ns; one that does not fit is counted as lost.
    pub fn record(&mut self, at: Ns, what: What) {
        // A gap is told before what follows it, so both must fit.
        if self.missed > 0 && self.ring.slots() >= 2 {
            let gap = Record {
                at,
                what: What::Lost(self.missed),
            };
            if self.ring.push(gap).is_ok() {
                self.missed = 0;
            }
        }
        if self.missed > 0 || self.ring.push(Record { at, what }).is_err() {
            self.missed += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(vcpu: u32) -> What {
        What::Gone(VcpuId(vcpu))
    }

    #[test]
    fn a_record_is_small_and_a_full_ring_says_what_it_dropped_and_where() {
        assert!(size_of::<Record>() <= 48);
        let lost = Arc::new(AtomicU64::new(0));
        let (mut port, mut ring) = Port::new(3, &lost);
        for at in 0..5 {
            port.record(at, gone(at as u32));
        }
        assert_eq!(lost.load(Ordering::Relaxed), 2);
        assert_eq!(ring.pop().map(|r| r.what), Ok(gone(0)));
        port.record(5, gone(5));
        assert_eq!(
            lost.load(Ordering::Relaxed),
            3,
            "one free slot does not hold gap and record"
        );
        assert_eq!(ring.pop().map(|r| r.what), Ok(gone(1)));
        port.record(6, gone(6));
        let rest: Vec<What> = std::iter::from_fn(|| ring.pop().ok())
            .map(|r| r.what)
            .collect();
        assert_eq!(rest, [gone(2), What::Lost(3), gone(6)]);
    }
}
