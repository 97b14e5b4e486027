//! The timers of a domain, in order.

use crate::ids::{Ns, VcpuId};
use crate::state::heap::Heap;

/// The timers of the claims of one domain.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    /// Of claims with a reservation.
    pub(crate) reserved: Heap<Ns>,
    /// Of claims by best effort.
    pub(crate) best_effort: Heap<Ns>,
}

impl Timers {
    /// No timers yet, with room for those of `vcpus` vCPUs.
    pub(crate) fn with_room_for(vcpus: usize) -> Self {
        let mut timers = Self {
            reserved: Heap::new(),
            best_effort: Heap::new(),
        };
        timers.grow(vcpus);
        timers
    }

    /// Makes room for the timers of `vcpus` vCPUs.
    pub(crate) fn grow(&mut self, vcpus: usize) {
        self.reserved.grow(2 * vcpus);
        self.best_effort.grow(2 * vcpus);
    }

    pub(crate) fn first(&self) -> Option<(Ns, u32)> {
        let heaps = [&self.reserved, &self.best_effort];
        heaps.into_iter().filter_map(Heap::first).min()
    }
}

/// The timer that replenishes or unparks a claim.
pub(crate) const fn sc_timer(vcpu: VcpuId) -> u32 {
    2 * vcpu.0
}

/// The timer that wakes a halted vCPU at its own wish.
pub(crate) const fn wake_timer(vcpu: VcpuId) -> u32 {
    2 * vcpu.0 + 1
}

pub(crate) const fn owner(timer: u32) -> VcpuId {
    VcpuId(timer / 2)
}
