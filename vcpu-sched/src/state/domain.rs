//! A domain: the host CPUs that serve one queue, that of the scheduling contexts with the same pinning.

use crate::classes::rank::Rank;
use crate::classes::virtual_time::VirtualTime;
use crate::cpuset::CpuSet;
use crate::ids::{Ns, VcpuId};
use crate::normal_form::Writer;
use crate::state::heap::Heap;
use crate::state::timer_queue::Timers;

/// The scheduling contexts that compete in a domain, the most urgent first.
#[derive(Clone, Debug)]
pub(crate) struct RunQueue(Heap<Rank>);

impl RunQueue {
    /// Makes room for `vcpus` vCPUs.
    pub(crate) fn grow(&mut self, vcpus: usize) {
        self.0.grow(vcpus);
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<(Rank, VcpuId)> {
        let (rank, vcpu) = self.0.first()?;
        Some((rank, VcpuId(vcpu)))
    }

    /// The rank with which the scheduling context is in the queue, for checks.
    pub(crate) fn rank(&self, vcpu: VcpuId) -> Option<Rank> {
        self.0.key(vcpu.0)
    }

    /// Puts the scheduling context in, or gives it a new rank.
    #[inline]
    pub(crate) fn set(&mut self, vcpu: VcpuId, rank: Rank) {
        self.0.set(vcpu.0, rank);
    }

    #[inline]
    pub(crate) fn remove(&mut self, vcpu: VcpuId) {
        self.0.remove(vcpu.0);
    }
}

/// A domain.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// The pinning.
    pub(crate) pinning: CpuSet,
    /// vCPUs with this pinning, those that have ended too. Without any, the domain goes.
    pub(crate) users: u32,
    /// The CPUs that serve the queue now: those of the pinning that are online, or all that are online if
    /// none of them is.
    pub(crate) cpus: CpuSet,
    pub(crate) queue: RunQueue,
    pub(crate) timers: Timers,
    /// Virtual time of the fair class: the largest start tag that began to run on these CPUs.
    pub(crate) virtual_time: VirtualTime,
    /// What the host has taken from these CPUs, ns.
    pub(crate) host_taken: Ns,
}

impl Domain {
    /// A domain for this pinning, which `cpus` serve, with room for `vcpus` vCPUs, without users.
    pub(crate) fn new(
        pinning: CpuSet,
        cpus: CpuSet,
        vcpus: usize,
        virtual_time: VirtualTime,
    ) -> Self {
        let mut queue = RunQueue(Heap::new());
        queue.grow(vcpus);
        Self {
            pinning,
            users: 0,
            cpus,
            queue,
            timers: Timers::with_room_for(vcpus),
            virtual_time,
            host_taken: 0,
        }
    }
}

impl Domain {
    /// Writes its normal form. Queue and timers are written with the vCPUs.
    pub(crate) fn normalise(&self, to: &mut Writer) {
        let Self {
            pinning,
            users,
            cpus,
            queue: _,
            timers: _,
            virtual_time,
            // Counts from when the budgets at hand began.
            host_taken: _,
        } = self;
        to.cpus(*pinning);
        to.number(*users);
        to.cpus(*cpus);
        to.virtual_moment(virtual_time.0);
    }
}
