//! What is recorded while guests run, and the rings that carry it to the writer.
//!
//! Each ring has one producer, one consumer and a fixed length, and all records have the same size. So
//! recording takes a few stores, and never an allocation, a lock or a system call. The policy's ring is
//! written under the pool's lock, so its many threads are one producer. Each executor has a ring of its
//! own for what it does outside that lock. A full ring drops records and records how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};
use vcpu_sched::{CpuId, Event, Ns, VcpuId};

use crate::exit_kind::ExitKind;

/// Length of a ring, records: half a second of a decision every 8 us.
pub(super) const RING_LENGTH: usize = 1 << 16;

/// One record of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceRecord {
    /// When it happened, ns of `CLOCK_MONOTONIC`.
    pub(super) at: Ns,
    pub(super) event: RecordedEvent,
}

/// What a record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordedEvent {
    /// The policy decided something.
    Policy(Event),
    /// A vCPU joined, which is `vcpu` from now on and has this number among the names.
    Joined { vcpu: VcpuId, number: u32 },
    /// The vCPU left the policy.
    Gone(VcpuId),
    /// A vCPU returned to its executor.
    Exit {
        /// The CPU of the executor.
        cpu: CpuId,
        vcpu: VcpuId,
        kind: ExitKind,
    },
    /// This many records before this one did not fit into the ring.
    Lost(u64),
}

/// The producer's end of a ring.
#[derive(Debug)]
pub(super) struct RingWriter {
    ring: Producer<TraceRecord>,
    /// Records dropped since the last one that fitted.
    missed: u64,
    /// Records dropped by all rings of the trace.
    lost: Arc<AtomicU64>,
}

impl RingWriter {
    /// A ring of `length` records. The number of records that it drops is added to `lost`.
    pub(super) fn new(length: usize, lost: &Arc<AtomicU64>) -> (Self, Consumer<TraceRecord>) {
        let (ring, consumer) = RingBuffer::new(length);
        (
            Self {
                ring,
                missed: 0,
                lost: Arc::clone(lost),
            },
            consumer,
        )
    }

    /// Records that `event` happened at `at`, ns. A record that does not fit is counted as lost.
    pub(super) fn record(&mut self, at: Ns, event: RecordedEvent) {
        // The gap is recorded before the record that follows it, so both must fit.
        if self.missed > 0 && self.ring.slots() >= 2 {
            let gap = TraceRecord {
                at,
                event: RecordedEvent::Lost(self.missed),
            };
            if self.ring.push(gap).is_ok() {
                self.missed = 0;
            }
        }
        if self.missed > 0 || self.ring.push(TraceRecord { at, event }).is_err() {
            self.missed += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(vcpu: u32) -> RecordedEvent {
        RecordedEvent::Gone(VcpuId(vcpu))
    }

    #[test]
    fn a_record_is_small_and_a_full_ring_records_how_many_were_dropped_and_where() {
        assert!(size_of::<TraceRecord>() <= 48);
        let lost = Arc::new(AtomicU64::new(0));
        let (mut writer, mut ring) = RingWriter::new(3, &lost);
        for at in 0..5 {
            writer.record(at, gone(at as u32));
        }
        assert_eq!(lost.load(Ordering::Relaxed), 2);
        assert_eq!(ring.pop().map(|r| r.event), Ok(gone(0)));
        writer.record(5, gone(5));
        assert_eq!(
            lost.load(Ordering::Relaxed),
            3,
            "one free slot does not hold gap and record"
        );
        assert_eq!(ring.pop().map(|r| r.event), Ok(gone(1)));
        writer.record(6, gone(6));
        let rest: Vec<RecordedEvent> = std::iter::from_fn(|| ring.pop().ok())
            .map(|r| r.event)
            .collect();
        assert_eq!(rest, [gone(2), RecordedEvent::Lost(3), gone(6)]);
    }
}
