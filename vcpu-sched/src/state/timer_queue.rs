//! The timers of a domain, in order.

use std::cmp::Ordering;

use crate::ids::{Ns, VcpuId};
use crate::normal_form::Writer;
use crate::state::heap::Heap;

/// A vCPU has two timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerId {
    /// Of its scheduling context: a replenishment, or the end of a bounded wait.
    Sc(VcpuId),
    /// Of its execution context: the time at which the halted vCPU is to be woken.
    Wake(VcpuId),
}

impl TimerId {
    /// The vCPU whose timer it is.
    #[inline]
    pub(crate) const fn vcpu(self) -> VcpuId {
        match self {
            Self::Sc(vcpu) | Self::Wake(vcpu) => vcpu,
        }
    }

    #[inline]
    const fn slot(self) -> u32 {
        match self {
            Self::Sc(vcpu) => 2 * vcpu.0,
            Self::Wake(vcpu) => 2 * vcpu.0 + 1,
        }
    }

    #[inline]
    const fn from_slot(slot: u32) -> Self {
        let vcpu = VcpuId(slot / 2);
        if slot.is_multiple_of(2) {
            Self::Sc(vcpu)
        } else {
            Self::Wake(vcpu)
        }
    }
}

impl Ord for TimerId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.slot().cmp(&other.slot())
    }
}

impl PartialOrd for TimerId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Timers in order of the time at which they are due, ns.
#[derive(Clone, Debug)]
pub(crate) struct TimerHeap(Heap<Ns>);

impl TimerHeap {
    #[inline]
    fn first(&self) -> Option<(Ns, TimerId)> {
        let (at, slot) = self.0.first()?;
        Some((at, TimerId::from_slot(slot)))
    }

    /// When the first timer is due.
    #[inline]
    pub(crate) fn first_at(&self) -> Option<Ns> {
        self.0.first().map(|(at, _)| at)
    }

    /// When the first timer is due that comes before `limit` and for which `concerns` holds.
    #[inline]
    pub(crate) fn first_where(
        &self,
        limit: Ns,
        concerns: impl Fn(TimerId, Ns) -> bool,
    ) -> Option<Ns> {
        let concerns = |slot, at| concerns(TimerId::from_slot(slot), at);
        self.0.first_where(limit, concerns)
    }

    /// When `timer` is due, if it is set.
    #[inline]
    pub(crate) fn due(&self, timer: TimerId) -> Option<Ns> {
        self.0.key(timer.slot())
    }

    #[inline]
    pub(crate) fn set(&mut self, timer: TimerId, at: Ns) {
        self.0.set(timer.slot(), at);
    }

    #[inline]
    pub(crate) fn clear(&mut self, timer: TimerId) {
        self.0.remove(timer.slot());
    }
}

/// The timers of the vCPUs of one domain.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    /// Of vCPUs with a reservation.
    pub(crate) deadline: TimerHeap,
    /// Of best-effort vCPUs.
    pub(crate) fair: TimerHeap,
}

impl Timers {
    /// No timers yet, with room for those of `vcpus` vCPUs.
    pub(crate) fn with_room_for(vcpus: usize) -> Self {
        let mut timers = Self {
            deadline: TimerHeap(Heap::new()),
            fair: TimerHeap(Heap::new()),
        };
        timers.grow(vcpus);
        timers
    }

    /// Makes room for the timers of `vcpus` vCPUs.
    pub(crate) fn grow(&mut self, vcpus: usize) {
        self.deadline.0.grow(2 * vcpus);
        self.fair.0.grow(2 * vcpus);
    }

    /// The timer that is due first, and when.
    #[inline]
    pub(crate) fn first(&self) -> Option<(Ns, TimerId)> {
        let heaps = [&self.deadline, &self.fair];
        heaps.into_iter().filter_map(TimerHeap::first).min()
    }
}

impl Timers {
    /// Writes the normal form of the timers of `vcpu`.
    pub(crate) fn normalise(&self, vcpu: VcpuId, to: &mut Writer) {
        for heap in [&self.deadline, &self.fair] {
            for timer in [TimerId::Sc(vcpu), TimerId::Wake(vcpu)] {
                to.option(heap.due(timer), Writer::time);
            }
        }
    }
}
