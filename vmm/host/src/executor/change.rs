//! Changes for the vCPUs of a guest that runs: other reservations, other weights, other host CPUs.

use std::ops::Range;
use std::sync::Arc;

use vcpu_sched::{AdmissionError, Ns, Reservation, SchedParams, VcpuId};

use super::admission::{in_pool, on_host};
use super::guest_error::GuestCallError;
use super::guest_key::GuestKey;
use super::pool_guest::VcpuTerms;
use super::pool_handle::PoolHandle;
use super::pool_state::PoolState;

/// What is to change for a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuChange {
    /// It has this reservation, in place of the one or the weight that it has. In force from its next budget on.
    Reservation(Reservation),
    /// It has this weight, in place of the one or the reservation that it has. In force from its next slice on.
    Weight(u32),
    /// It runs on these host CPUs of the pool; `None`: on all of them.
    HostCpus(Option<Vec<usize>>),
}

impl PoolHandle {
    /// Changes the vCPU with index `vcpu` of `guest`, or with `None` all of its vCPUs, or none of them if
    /// the policy refuses one.
    ///
    /// # Errors
    /// If there is no such guest or vCPU, the guest has ended, the pool has stopped, or the policy cannot keep the
    /// reservation. Then all is as before.
    pub fn set<'a>(
        &self,
        guest: impl Into<GuestKey<'a>>,
        vcpu: Option<u32>,
        change: &VcpuChange,
    ) -> Result<(), GuestCallError> {
        let key = guest.into();
        let name = key.name();
        let cpus = Arc::clone(self.pool.host_cpus());
        let result = self.pool.change(|state, now| {
            let guest = state.going_on(key)?;
            let ids = guest.ids().clone();
            let indices = indices(name, ids.vcpus().len() as u32, vcpu)?;
            let before = guest.terms.clone();
            let mut after = before.clone();
            for index in indices.clone() {
                after[index as usize].change(change, &cpus);
            }
            if let Some((vcpu, source)) =
                state.change_all(ids.vcpus(), indices, &before, &after, now)
            {
                return Err(GuestCallError::Admission {
                    guest: name.to_owned(),
                    vcpu,
                    source,
                });
            }
            if let VcpuChange::HostCpus(_) = change {
                // In this critical section, so that of two changes at once the policy and the threads keep the same.
                for terms in &after {
                    terms.host_cpus.set(on_host(terms.allowed, &cpus));
                }
            }
            if let Some(guest) = state.guests.get_mut(ids.guest()) {
                guest.terms = after;
            }
            Ok(())
        });
        if let VcpuChange::HostCpus(_) = change {
            // Threads that sleep for the vCPU move when it wakes next.
            self.pool.pins.lost();
        }
        result
    }
}

/// The indices that `vcpu` names among those of guest `name`, which has `count` vCPUs.
fn indices(name: &str, count: u32, vcpu: Option<u32>) -> Result<Range<u32>, GuestCallError> {
    match vcpu {
        None => Ok(0..count),
        Some(vcpu) if vcpu < count => Ok(vcpu..vcpu + 1),
        Some(vcpu) => Err(GuestCallError::NoVcpu {
            guest: name.to_owned(),
            vcpu,
            last: count.saturating_sub(1),
        }),
    }
}

impl VcpuTerms {
    fn change(&mut self, change: &VcpuChange, host_cpus: &[usize]) {
        match change {
            VcpuChange::Reservation(reservation) => {
                self.params = SchedParams::Reserved(*reservation);
            }
            VcpuChange::Weight(weight) => self.params = SchedParams::BestEffort { weight: *weight },
            VcpuChange::HostCpus(own) => {
                self.allowed = own.as_deref().map(|own| in_pool(own, host_cpus));
            }
        }
    }
}

impl PoolState {
    /// Gives the vCPUs `indices` of `vcpus` the terms `after` in place of `before`, all or none. Returns the first
    /// that the policy refuses.
    fn change_all(
        &mut self,
        vcpus: &[VcpuId],
        indices: Range<u32>,
        before: &[VcpuTerms],
        after: &[VcpuTerms],
        now: Ns,
    ) -> Option<(u32, AdmissionError)> {
        for index in indices.clone() {
            let at = index as usize;
            if let Err(source) = self.change_one(vcpus[at], &before[at], &after[at], now) {
                for at in indices.start as usize..at {
                    // What the vCPU had a moment ago is still held for it.
                    let _ = self.change_one(vcpus[at], &after[at], &before[at], now);
                }
                return Some((index, source));
            }
        }
        None
    }

    fn change_one(
        &mut self,
        vcpu: VcpuId,
        before: &VcpuTerms,
        after: &VcpuTerms,
        now: Ns,
    ) -> Result<(), AdmissionError> {
        if after.allowed != before.allowed {
            self.sched.set_allowed(vcpu, after.allowed, now)?;
        }
        if after.params == before.params {
            return Ok(());
        }
        match after.params {
            SchedParams::Reserved(reservation) => {
                self.sched.set_reservation(vcpu, reservation, now)
            }
            SchedParams::BestEffort { weight } => self.sched.set_weight(vcpu, weight, now),
        }
    }
}
