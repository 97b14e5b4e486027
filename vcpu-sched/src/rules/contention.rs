//! Whether the vCPUs of a guest spin for each other.
//!
//! A preempted holder costs its guest something only if another vCPU spins for it. Where all waiters sleep, most of
//! what is held is wanted by no other: the sections of a kernel that sends an interrupt or switches tasks, and the
//! inner lock of a mutex. To let such a holder run first, or to look for spinning vCPUs because of it, gains
//! nothing, and often the holder is then stopped with a mutex held that it took meanwhile.
//!
//! So a guest counts as contended until [`MAX_UNNEEDED`] holders have run before vCPUs that hold nothing, and none of
//! its vCPUs has been seen to spin meanwhile while another was off the CPUs that held something or spun. From
//! then on a vCPU that holds nothing runs at once, and none is looked at because it may come to spin (`suspect.rs`),
//! until two are seen to spin for each other again, at the end of a turn at the latest. A vCPU that spins is always
//! helped. A guest begins as contended, because a queue of waiters that has once formed takes long to dissolve.

use crate::events::Events;
use crate::ids::VcpuId;
use crate::scheduler::Scheduler;

/// So many holders run first in a guest whose vCPUs do not spin for each other.
const MAX_UNNEEDED: u32 = 64;

impl<E: Events> Scheduler<E> {
    /// `vcpu` has stopped: notes if it spun while others did so too or held something.
    pub(crate) fn note_contention(&mut self, vcpu: VcpuId) {
        if self.queues_with_others(vcpu) {
            self.guests[self.vcpus[vcpu].guest].unneeded = 0;
        }
    }

    /// One that holds something and does not spin runs before `vcpu`, which holds nothing.
    pub(crate) fn note_precedence(&mut self, vcpu: VcpuId) {
        let unneeded = &mut self.guests[self.vcpus[vcpu].guest].unneeded;
        *unneeded = unneeded.saturating_add(1);
    }

    /// Whether the guest of `vcpu` counts as contended.
    pub(crate) fn is_contended(&self, vcpu: VcpuId) -> bool {
        self.guests[self.vcpus[vcpu].guest].unneeded < MAX_UNNEEDED
    }
}
