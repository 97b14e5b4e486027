//! The host CPUs of the pool, which gets some and gives some up while guests run:
//!
//! 1. The pool has places for a fixed number of CPUs ([`Config::cpus`](crate::Config)), and has some of them. A CPU that
//!    it does not have is treated as one that is offline, but nothing is promised on it: reservations are admitted for
//!    the CPUs that the pool has, online or not.
//! 2. A vCPU that may run on every CPU of the pool may run on a new one at once. A vCPU that is pinned may be pinned to
//!    CPUs that the pool does not have yet; at least one of its CPUs is the pool's.
//! 3. A CPU is given up only if all that is promised still fits on the others, bandwidth that is held included, and
//!    every vCPU may run on one of the others. So no reservation becomes smaller, and nothing is displaced.
//! 4. From then on, what was on the CPU goes on elsewhere, as when the CPU goes offline.
//!
//! These calls allocate memory, as those of `hotplug.rs` do.

use crate::classes::admission::Admission;
use crate::classes::reservation::Reservation;
use crate::cpuset::CpuSet;
use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::ExecState;

/// The pool cannot give a CPU up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuRemovalError {
    /// The pool does not have it.
    #[error("the pool does not have {0}")]
    NotThere(CpuId),
    /// No other CPU of the pool is online.
    #[error("it is the last CPU of the pool that can be used")]
    Last,
    /// These vCPUs may run nowhere else.
    #[error("vCPUs are pinned to it alone")]
    Pinned(Vec<VcpuId>),
    /// Less is left on the other CPUs than is promised.
    #[error(
        "on the other {cpus} CPU(s) {}.{} % of a CPU can be reserved, and {}.{} % is",
        fits_permille / 10, fits_permille % 10, promised_permille / 10, promised_permille % 10
    )]
    NoBandwidth {
        /// The vCPUs with reservations that would not fit beside those of the guests before theirs.
        vcpus: Vec<VcpuId>,
        /// CPUs among which the bandwidth would be missing.
        cpus: u32,
        /// What is promised there, thousandths of a CPU, rounded up.
        promised_permille: u64,
        /// What can be promised there, thousandths of a CPU, rounded down.
        fits_permille: u64,
        /// When the last bandwidth is free that was given up and still counts, ns.
        held_until: Option<Ns>,
    },
}

impl<E: Events> Scheduler<E> {
    /// The CPUs of the pool, online or not.
    #[must_use]
    pub const fn pool_cpus(&self) -> CpuSet {
        self.cpus.all()
    }

    /// The pinning of a vCPU that may run on these CPUs, or on all of the pool.
    pub(crate) fn pinning_to(&self, allowed: Option<CpuSet>) -> CpuSet {
        let places = self.cpus.places();
        allowed.unwrap_or(places).and(places)
    }

    /// The pool gets `cpu`, which is online. False, and nothing changes, if it has it already, or has no place for it.
    pub fn add_cpu(&mut self, cpu: CpuId, now: Ns) -> bool {
        if self.cpus.all().contains(cpu) || !self.cpus.places().contains(cpu) {
            return false;
        }
        self.cpus.add(cpu);
        self.use_cpu(cpu, now);
        self.check();
        true
    }

    /// The pool gives `cpu` up: the CPU is kicked, and picks nothing from now on.
    ///
    /// # Errors
    /// Why the pool has to keep it; nothing changes then.
    pub fn remove_cpu(&mut self, cpu: CpuId, now: Ns) -> Result<(), CpuRemovalError> {
        self.may_remove_cpu(cpu, now)?;
        let was_online = self.cpus.online().contains(cpu);
        self.cpus.remove(cpu);
        match was_online {
            true => self.leave_cpu(cpu, now),
            false => self.cpus_changed(now),
        }
        self.check();
        Ok(())
    }

    /// Rule 3.
    fn may_remove_cpu(&mut self, cpu: CpuId, now: Ns) -> Result<(), CpuRemovalError> {
        let mut left = self.cpus.all();
        if !left.contains(cpu) {
            return Err(CpuRemovalError::NotThere(cpu));
        }
        left.remove(cpu);
        if left.and(self.cpus.online()).is_empty() {
            return Err(CpuRemovalError::Last);
        }
        let pinned = self.vcpus.ids().filter(|&vcpu| {
            let v = &self.vcpus[vcpu];
            let cpus = [v.ec.allowed, self.promised_cpus(vcpu)];
            v.ec.state != ExecState::Gone && cpus.iter().any(|cpus| cpus.and(left).is_empty())
        });
        let pinned: Vec<VcpuId> = pinned.collect();
        if !pinned.is_empty() {
            return Err(CpuRemovalError::Pinned(pinned));
        }
        let held_until = self.free_held_bandwidth(now);
        match self.admission.first_overbooked(left) {
            None => Ok(()),
            Some(bound) => {
                let (promised_permille, fits_permille) = self.admission.permille(bound, left);
                Err(CpuRemovalError::NoBandwidth {
                    vcpus: self.not_fitting(left),
                    cpus: bound.len(),
                    promised_permille,
                    fits_permille,
                    held_until,
                })
            }
        }
    }

    /// The vCPUs with reservations that do not fit on the CPUs `left`, guest by guest in the order in which they were
    /// added.
    fn not_fitting(&self, left: CpuSet) -> Vec<VcpuId> {
        let mut in_order: Vec<_> = self.guests.ids().collect();
        in_order.sort_by_key(|&guest| self.guests[guest].added_seq);
        let mut kept: Admission = self.admission.emptied();
        let mut not_fitting = Vec::new();
        for guest in in_order {
            let promised = self.guests[guest].vcpus.iter().filter_map(|&vcpu| {
                let is_gone = self.vcpus[vcpu].ec.state == ExecState::Gone;
                let promised: Reservation = self.promised(vcpu).filter(|_| !is_gone)?;
                Some((vcpu, promised, self.promised_cpus(vcpu)))
            });
            let promised: Vec<_> = promised.collect();
            let mut beside = kept.clone();
            let mut takes = |(_, reservation, cpus): &(VcpuId, Reservation, CpuSet)| {
                beside.take(reservation, *cpus, left).is_ok()
            };
            match promised.iter().all(&mut takes) {
                true => kept = beside,
                false => not_fitting.extend(promised.into_iter().map(|(vcpu, ..)| vcpu)),
            }
        }
        not_fitting
    }
}
