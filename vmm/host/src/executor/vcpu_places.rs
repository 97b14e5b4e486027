//! Where each vCPU of the pool is. All moves from one place to another are here.
//!
//! ```text
//!   in the pool ─ take ─> with an executor ─ send_to_sleep ─> on a halt thread ─ sleep_in_place ─> asleep
//!        ^                       │                                   │                           in place
//!        └────── put_back ───────┴───────────────────────────────────┴───────────────────────────────┘
//! ```
//!
//! A vCPU that waits to be started goes to a halt thread at once (`take_unstarted`). One whose sleep in place
//! is cut short, because its executor has something to run, moves on to a halt thread
//! (`sleep_on_halt_thread`). When its guest has ended, a vCPU goes to `Ended`, at the latest when it comes
//! back.

use baton_machine::{ExitCounts, Vcpu};
use vcpu_sched::{CpuId, VcpuId};

use super::after_unlock::AfterUnlock;
use super::owned_vcpu::OwnedVcpu;

/// Where a vCPU is.
enum VcpuPlace {
    /// In the pool, for an executor to take.
    InPool(Box<Vcpu>),
    /// In the hands of an executor that runs it.
    WithExecutor,
    /// Halted, asleep in `KVM_RUN` on a halt thread, or on its way there.
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

/// The places of all vCPUs of a pool, in the policy's order.
pub(crate) struct VcpuPlaces {
    places: Vec<VcpuPlace>,
    /// vCPUs of ended guests. What they hold of the host is to be released without the pool's lock.
    #[expect(
        clippy::vec_box,
        reason = "it is filled under the lock, and vCPUs are large"
    )]
    ended: Vec<Box<Vcpu>>,
}

impl VcpuPlaces {
    /// All of `vcpus` are in the pool.
    pub(crate) fn new(vcpus: impl Iterator<Item = Box<Vcpu>>) -> Self {
        Self {
            places: vcpus.map(VcpuPlace::InPool).collect(),
            ended: Vec::new(),
        }
    }

    /// The number of vCPUs.
    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    /// Takes `id` from the pool for an executor that is to run it.
    pub(crate) fn take(&mut self, id: VcpuId) -> Result<OwnedVcpu, NotInPool> {
        let place = &mut self.places[id.index()];
        match std::mem::replace(place, VcpuPlace::WithExecutor) {
            VcpuPlace::InPool(vcpu) => Ok(OwnedVcpu::new(id, vcpu)),
            elsewhere => {
                let asleep = elsewhere.is_asleep();
                *place = elsewhere;
                Err(match asleep {
                    true => NotInPool::Asleep,
                    false => NotInPool::Gone,
                })
            }
        }
    }

    /// Takes the vCPUs that wait in the pool to be started by their guest, to be put to sleep.
    pub(crate) fn take_unstarted(&mut self) -> Vec<OwnedVcpu> {
        let mut unstarted = Vec::new();
        for (place, id) in self.places.iter_mut().zip(0..) {
            match std::mem::replace(place, VcpuPlace::OnHaltThread) {
                VcpuPlace::InPool(vcpu) if vcpu.index > 0 => {
                    unstarted.push(OwnedVcpu::new(VcpuId(id), vcpu));
                }
                other => *place = other,
            }
        }
        unstarted
    }

    /// `vcpu` comes back, from an executor or from its sleep.
    pub(crate) fn put_back(&mut self, vcpu: OwnedVcpu) {
        let id = vcpu.id();
        let vcpu = vcpu.into_vcpu();
        if vcpu.guest.has_ended() {
            self.end_vcpu(id, vcpu);
        } else {
            self.places[id.index()] = VcpuPlace::InPool(vcpu);
        }
    }

    /// `vcpu` has halted and is to sleep on a halt thread. `None`: its guest has ended, so that it
    /// stays.
    pub(crate) fn send_to_sleep(&mut self, vcpu: OwnedVcpu) -> Option<OwnedVcpu> {
        if vcpu.guest.has_ended() {
            self.end_vcpu(vcpu.id(), vcpu.into_vcpu());
            return None;
        }
        self.sleep_on_halt_thread(vcpu.id());
        Some(vcpu)
    }

    /// `id` has halted, or still sleeps, and is on its way to a halt thread.
    pub(crate) fn sleep_on_halt_thread(&mut self, id: VcpuId) {
        self.places[id.index()] = VcpuPlace::OnHaltThread;
    }

    /// `id`, which was to sleep on a halt thread, sleeps with the executor of `cpu` instead.
    pub(crate) fn sleep_in_place(&mut self, id: VcpuId, cpu: CpuId) {
        self.places[id.index()] = VcpuPlace::AsleepInPlace {
            cpu,
            interrupted: false,
        };
    }

    /// Whether `id` sleeps in `KVM_RUN`.
    pub(crate) fn is_asleep(&self, id: VcpuId) -> bool {
        self.places[id.index()].is_asleep()
    }

    /// Whether `id`, which sleeps in place, is to come back.
    pub(crate) fn is_interrupted(&self, id: VcpuId) -> bool {
        let place = &self.places[id.index()];
        matches!(
            place,
            VcpuPlace::AsleepInPlace {
                interrupted: true,
                ..
            }
        )
    }

    /// Ends the sleep of `id`, if it sleeps, by what `after` does.
    pub(crate) fn interrupt_sleep(&mut self, id: VcpuId, after: &mut AfterUnlock) {
        match &mut self.places[id.index()] {
            VcpuPlace::OnHaltThread => after.interrupts.push(id),
            VcpuPlace::AsleepInPlace { cpu, interrupted } => {
                *interrupted = true;
                after.kicks.insert(*cpu);
            }
            _ => {}
        }
    }

    /// The thread that ran `id` has failed, and the vCPU is lost with it.
    pub(crate) fn lose(&mut self, id: VcpuId) {
        self.places[id.index()] = VcpuPlace::Lost;
    }

    /// The guest of `id` has ended. A vCPU that is elsewhere ends when it comes back.
    pub(crate) fn end(&mut self, id: VcpuId) {
        let place = &mut self.places[id.index()];
        match std::mem::replace(place, VcpuPlace::Lost) {
            VcpuPlace::InPool(vcpu) => self.end_vcpu(id, vcpu),
            other => *place = other,
        }
    }

    /// Nothing runs `vcpu` any more: its counters stay, and it is dropped once the lock is free.
    fn end_vcpu(&mut self, id: VcpuId, vcpu: Box<Vcpu>) {
        self.places[id.index()] = VcpuPlace::Ended(vcpu.exits);
        self.ended.push(vcpu);
    }

    /// The vCPUs of ended guests that have come back since the last call.
    #[expect(clippy::vec_box, reason = "as in the field")]
    pub(crate) fn take_ended(&mut self) -> Vec<Box<Vcpu>> {
        std::mem::take(&mut self.ended)
    }

    /// The counters of all vCPUs, in the policy's order, at the end of a run. Drops the vCPUs that are
    /// in the pool. A vCPU that is not back counts nothing.
    pub(crate) fn take_counters(&mut self) -> impl Iterator<Item = ExitCounts> + use<> {
        let places = std::mem::take(&mut self.places).into_iter();
        places.map(|place| match place {
            VcpuPlace::InPool(vcpu) => vcpu.exits,
            VcpuPlace::Ended(exits) => exits,
            VcpuPlace::WithExecutor
            | VcpuPlace::OnHaltThread
            | VcpuPlace::AsleepInPlace { .. }
            | VcpuPlace::Lost => ExitCounts::default(),
        })
    }

    /// The vCPUs that are in the pool.
    #[cfg(test)]
    pub(crate) fn in_pool(&mut self) -> impl Iterator<Item = &mut Vcpu> {
        self.places.iter_mut().filter_map(|place| match place {
            VcpuPlace::InPool(vcpu) => Some(&mut **vcpu),
            _ => None,
        })
    }
}
