//! A vCPU that has been taken from the pool, with its number in the policy.

use std::ops::{Deref, DerefMut};

use baton_machine::Vcpu;
use baton_os::sys;
use vcpu_sched::{Hints, VcpuId};

use super::policy_ids::PolicyIds;

/// A vCPU in the hands of its one owner: an executor, the thread on which it runs or sleeps, or work
/// on its way there. There is one of these for each vCPU, so no vCPU runs twice at once.
pub(crate) struct OwnedVcpu {
    id: VcpuId,
    vcpu: Box<Vcpu>,
}

impl OwnedVcpu {
    /// `vcpu`, which the policy calls `id`.
    pub(crate) fn new(id: VcpuId, vcpu: Box<Vcpu>) -> Self {
        Self { id, vcpu }
    }

    /// Its number in the policy.
    pub(crate) fn id(&self) -> VcpuId {
        self.id
    }

    /// The policy's numbers for the vCPUs of its guest.
    pub(crate) fn ids(&self) -> PolicyIds {
        PolicyIds::of_vcpu(self.id, self.vcpu.index)
    }

    /// A copy of its hint record, or what the host infers, in the policy's terms.
    pub(crate) fn hints(&mut self) -> Hints {
        let snapshot = match self.is_inferred() {
            true => self.vcpu.inferred_hints(sys::monotonic_ns()),
            false => self.guest.hints.snapshot(self.index),
        };
        self.ids().hints(snapshot)
    }

    /// The same of a vCPU that has halted.
    pub(crate) fn hints_of_halted(&mut self) -> Hints {
        match self.is_inferred() {
            true => self.ids().hints(self.guest.inferred.halted(self.index)),
            false => self.hints(),
        }
    }

    /// Whether the host infers its hints: it has no page in which it could publish them.
    pub(crate) fn is_inferred(&self) -> bool {
        self.guest.inferred.is_on() && !self.guest.hints.is_registered(self.index)
    }

    /// The vCPU without its number.
    pub(crate) fn into_vcpu(self) -> Box<Vcpu> {
        self.vcpu
    }
}

impl Deref for OwnedVcpu {
    type Target = Vcpu;

    fn deref(&self) -> &Vcpu {
        &self.vcpu
    }
}

impl DerefMut for OwnedVcpu {
    fn deref_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }
}
