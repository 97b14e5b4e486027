//! Where halted vCPUs sleep: one berth per vCPU, in which KVM wakes it for an interrupt, and which
//! gives it back to the pool instead of letting it run on.

use std::sync::{Arc, Weak};

use vcpu_sched::VcpuId;

use super::pool::{Berths, Pool};
use crate::halt::{Berth, BerthEnd, BerthError, ExitOnWake, check_wake_step};

use crate::machine::{Vcpu, kvm};

/// The berths of all vCPUs of a pool.
struct VcpuBerths {
    berths: Vec<Berth>,
    /// The pool keeps the berths, so they must not keep the pool.
    pool: Weak<Pool>,
}

impl Berths for VcpuBerths {
    fn put(&self, id: VcpuId, vcpu: Box<Vcpu>) {
        // A berth has one vCPU, which is not in two places: it is free unless it is closing.
        if let Err(vcpu) = self.berths[id.index()].put(vcpu)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.comes_back(id, vcpu, 0);
        }
    }

    fn recall(&self, id: VcpuId) {
        self.berths[id.index()].recall();
    }
}

/// Starts a berth for each vCPU (guest number, guest name, index). `None` where KVM cannot end a
/// halt without delivering the interrupt; then halted vCPUs are looked at from time to time.
///
/// # Errors
/// If the host has no thread left.
pub(crate) fn start(
    pool: &Arc<Pool>,
    vcpus: &[(usize, String, u32)],
) -> Result<Option<Arc<dyn Berths>>, BerthError> {
    if !possible() {
        return Ok(None);
    }
    let berth = |(id, (_, name, index)): (VcpuId, &(usize, String, u32))| {
        let pool = Arc::downgrade(pool);
        let on_wake = move |vcpu: Box<Vcpu>, end: BerthEnd, spent_ns: u64| {
            if let Some(pool) = pool.upgrade() {
                give_back(&pool, id, vcpu, end, spent_ns);
            }
        };
        let name = format!("berth{index}:{name}").chars().take(15).collect();
        Berth::new(name, ExitOnWake::Events, Box::new(on_wake))
    };
    let made = (0..)
        .map(VcpuId)
        .zip(vcpus)
        .map(berth)
        .collect::<Result<Vec<_>, _>>();
    let berths = Arc::new(VcpuBerths {
        berths: made?,
        pool: Arc::downgrade(pool),
    });
    Ok(Some(berths))
}

/// Whether KVM can end a halt without delivering the interrupt.
pub(super) fn possible() -> bool {
    kvm::open().is_ok_and(|kvm| check_wake_step(&kvm).is_ok())
}

/// A vCPU's sleep is over, for the reason `end`; the thread where it slept has used `spent_ns` of CPU
/// time for it since it gave it back last.
pub(super) fn give_back(
    pool: &Pool,
    id: VcpuId,
    mut vcpu: Box<Vcpu>,
    end: BerthEnd,
    spent_ns: u64,
) {
    let guest = Arc::clone(&vcpu.guest);
    if let BerthEnd::Exited(exit) = end {
        // Its one instruction needs an answer, which the policy's turn gives.
        vcpu.put_off(exit);
    }
    pool.comes_back(id, vcpu, spent_ns);
    if guest.has_ended() {
        pool.retire(&guest);
    }
}
