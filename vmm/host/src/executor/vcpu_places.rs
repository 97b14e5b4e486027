//! Where each vCPU of the pool is. All moves from one place to another are here.
//!
//! ```text
//!   add ─> in the pool ─ take ─> with an executor ─ send_to_sleep ─> on a halt thread ─ sleep_in_place ─> asleep
//!               ^                       │                                   │                            in place
//!               └────── put_back ───────┴───────────────────────────────────┴────────────────────────────────┘
//! ```
//!
//! A vCPU that waits to be started goes to a halt thread at once (`take_unstarted`). One whose sleep in place
//! is cut short, because its executor has something to run, moves on to a halt thread
//! (`sleep_on_halt_thread`). When its guest has ended, a vCPU goes to `Ended`, at the latest when it comes
//! back. Its row stays until the policy's ids of its guest are free (`remove`).

use std::sync::Arc;

use baton_machine::ExitCounts;
use vcpu_sched::{CpuId, VcpuId};

use super::after_unlock::AfterUnlock;
use super::interrupt_sleep::InterruptSleep;
use super::owned_vcpu::OwnedVcpu;

/// Where a vCPU is.
enum VcpuPlace {
    /// In the pool, for an executor to take.
    InPool(OwnedVcpu),
    /// In the hands of an executor that runs it.
    WithExecutor,
    /// Halted, asleep in `KVM_RUN` on a halt thread or its own thread, or on its way there.
    OnHaltThread,
    /// Halted, asleep in `KVM_RUN` on the thread of an executor that has nothing else to run.
    AsleepInPlace {
        /// The executor's CPU.
        cpu: CpuId,
        /// Its sleep is to end.
        interrupted: bool,
    },
    /// Its guest has ended. These are its counters.
    Ended(ExitCounts),
    /// The thread that ran it has failed.
    Lost,
}

impl VcpuPlace {
    fn is_asleep(&self) -> bool {
        matches!(self, Self::OnHaltThread | Self::AsleepInPlace { .. })
    }
}

/// Why a vCPU cannot be taken from the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotInPool {
    /// It sleeps in `KVM_RUN`.
    Asleep,
    /// Its guest has ended, or it is lost, or an executor has it.
    Gone,
}

/// One vCPU of the pool.
pub(crate) struct VcpuRow {
    place: VcpuPlace,
    sleep: Arc<dyn InterruptSleep>,
}

/// The places of all vCPUs of a pool, by their ids in the policy.
#[derive(Default)]
pub(crate) struct VcpuPlaces {
    rows: Vec<Option<VcpuRow>>,
    /// vCPUs of ended guests. What they hold of the host is to be released without the pool's lock.
    ended: Vec<OwnedVcpu>,
}

impl VcpuPlaces {
    fn row(&self, id: VcpuId) -> Option<&VcpuRow> {
        self.rows.get(id.index())?.as_ref()
    }

    fn row_mut(&mut self, id: VcpuId) -> Option<&mut VcpuRow> {
        self.rows.get_mut(id.index())?.as_mut()
    }

    fn set(&mut self, id: VcpuId, place: VcpuPlace) {
        if let Some(row) = self.row_mut(id) {
            row.place = place;
        }
    }

    /// `vcpu` is new in the pool.
    pub(crate) fn add(&mut self, vcpu: OwnedVcpu) {
        let index = vcpu.id().index();
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, || None);
        }
        self.rows[index] = Some(VcpuRow {
            sleep: vcpu.interrupt(),
            place: VcpuPlace::InPool(vcpu),
        });
    }

    /// Forgets `id`, which the policy may give to another vCPU from now on. What is returned is to be dropped
    /// without the pool's lock.
    pub(crate) fn remove(&mut self, id: VcpuId) -> Option<VcpuRow> {
        self.rows.get_mut(id.index())?.take()
    }

    /// Takes `id` from the pool for an executor that is to run it.
    pub(crate) fn take(&mut self, id: VcpuId) -> Result<OwnedVcpu, NotInPool> {
        let Some(row) = self.row_mut(id) else {
            return Err(NotInPool::Gone);
        };
        match std::mem::replace(&mut row.place, VcpuPlace::WithExecutor) {
            VcpuPlace::InPool(vcpu) => Ok(vcpu),
            elsewhere => {
                let asleep = elsewhere.is_asleep();
                row.place = elsewhere;
                Err(match asleep {
                    true => NotInPool::Asleep,
                    false => NotInPool::Gone,
                })
            }
        }
    }

    /// Takes those of `ids` that wait in the pool to be started by their guest, to be put to sleep.
    pub(crate) fn take_unstarted(&mut self, ids: &[VcpuId]) -> Vec<OwnedVcpu> {
        self.take_where(ids, |vcpu| vcpu.index() > 0)
    }

    /// Takes those of `ids` that are in the pool, to be put to sleep.
    pub(crate) fn take_all(&mut self, ids: &[VcpuId]) -> Vec<OwnedVcpu> {
        self.take_where(ids, |_| true)
    }

    fn take_where(
        &mut self,
        ids: &[VcpuId],
        is_taken: impl Fn(&OwnedVcpu) -> bool,
    ) -> Vec<OwnedVcpu> {
        let mut taken = Vec::new();
        for &id in ids {
            let Some(row) = self.row_mut(id) else {
                continue;
            };
            match std::mem::replace(&mut row.place, VcpuPlace::OnHaltThread) {
                VcpuPlace::InPool(vcpu) if is_taken(&vcpu) => taken.push(vcpu),
                other => row.place = other,
            }
        }
        taken
    }

    /// `vcpu` comes back, from an executor or from its sleep.
    pub(crate) fn put_back(&mut self, vcpu: OwnedVcpu) {
        if vcpu.has_ended() {
            self.end_vcpu(vcpu);
        } else {
            self.set(vcpu.id(), VcpuPlace::InPool(vcpu));
        }
    }

    /// `vcpu` has halted and is to sleep on a halt thread. `None`: its guest has ended, so that it
    /// stays.
    pub(crate) fn send_to_sleep(&mut self, vcpu: OwnedVcpu) -> Option<OwnedVcpu> {
        if vcpu.has_ended() {
            self.end_vcpu(vcpu);
            return None;
        }
        self.sleep_on_halt_thread(vcpu.id());
        Some(vcpu)
    }

    /// `id` has halted, or still sleeps, and is on its way to a halt thread.
    pub(crate) fn sleep_on_halt_thread(&mut self, id: VcpuId) {
        self.set(id, VcpuPlace::OnHaltThread);
    }

    /// `id`, which was to sleep on a halt thread, sleeps with the executor of `cpu` instead.
    pub(crate) fn sleep_in_place(&mut self, id: VcpuId, cpu: CpuId) {
        self.set(
            id,
            VcpuPlace::AsleepInPlace {
                cpu,
                interrupted: false,
            },
        );
    }

    /// Whether `id` sleeps in `KVM_RUN`.
    pub(crate) fn is_asleep(&self, id: VcpuId) -> bool {
        self.row(id).is_some_and(|row| row.place.is_asleep())
    }

    /// Whether `id`, which sleeps in place, is to come back.
    pub(crate) fn is_interrupted(&self, id: VcpuId) -> bool {
        let place = self.row(id).map(|row| &row.place);
        matches!(
            place,
            Some(VcpuPlace::AsleepInPlace {
                interrupted: true,
                ..
            })
        )
    }

    /// Ends the sleep of `id`, if it sleeps, by what `after` does.
    pub(crate) fn interrupt_sleep(&mut self, id: VcpuId, after: &mut AfterUnlock) {
        let Some(row) = self.row_mut(id) else { return };
        match &mut row.place {
            VcpuPlace::OnHaltThread => after.interrupts.push((id, Arc::clone(&row.sleep))),
            VcpuPlace::AsleepInPlace { cpu, interrupted } => {
                *interrupted = true;
                after.kicks.insert(*cpu);
            }
            _ => {}
        }
    }

    /// The thread that ran `id` has failed, and the vCPU is lost with it.
    pub(crate) fn lose(&mut self, id: VcpuId) {
        self.set(id, VcpuPlace::Lost);
    }

    /// The guest of `id` has ended. A vCPU that is elsewhere ends when it comes back.
    pub(crate) fn end(&mut self, id: VcpuId) {
        let Some(row) = self.row_mut(id) else { return };
        match std::mem::replace(&mut row.place, VcpuPlace::Lost) {
            VcpuPlace::InPool(vcpu) => self.end_vcpu(vcpu),
            other => row.place = other,
        }
    }

    /// Nothing runs `vcpu` any more: its counters stay, and it is dropped once the lock is free. Its row keeps
    /// the way to its threads.
    fn end_vcpu(&mut self, vcpu: OwnedVcpu) {
        self.set(vcpu.id(), VcpuPlace::Ended(vcpu.exits()));
        self.ended.push(vcpu);
    }

    /// Whether `id` has ended and come back, or cannot come back.
    pub(crate) fn has_ended(&self, id: VcpuId) -> bool {
        self.row(id)
            .is_none_or(|row| matches!(row.place, VcpuPlace::Ended(_) | VcpuPlace::Lost))
    }

    /// The vCPUs of ended guests that have come back since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<OwnedVcpu> {
        std::mem::take(&mut self.ended)
    }

    /// The exits of `id`, which does not run any more. A vCPU that is not back counts nothing.
    pub(crate) fn exits(&self, id: VcpuId) -> ExitCounts {
        match self.row(id).map(|row| &row.place) {
            Some(VcpuPlace::InPool(vcpu)) => vcpu.exits(),
            Some(VcpuPlace::Ended(exits)) => *exits,
            _ => ExitCounts::default(),
        }
    }

    /// The vCPUs of this process that are in the pool.
    #[cfg(test)]
    pub(crate) fn in_pool(&mut self) -> impl Iterator<Item = &mut baton_machine::Vcpu> {
        self.rows
            .iter_mut()
            .flatten()
            .filter_map(|row| match &mut row.place {
                VcpuPlace::InPool(OwnedVcpu::Local(vcpu)) => Some(&mut **vcpu),
                _ => None,
            })
    }
}
