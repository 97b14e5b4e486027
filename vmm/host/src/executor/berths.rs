//! Where halted vCPUs sleep: one berth per vCPU, in which KVM wakes it for an interrupt, and which
//! gives it back to the pool instead of letting it run on.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use baton_machine::{Vcpu, kvm};
use baton_os::sys;
use vcpu_sched::VcpuId;

use super::owned_vcpu::OwnedVcpu;
use super::pool::{HaltThreads, Pool};
use super::pool_guest::NewVcpu;
use crate::halt::{Berth, BerthEnd, BerthError, ExitOnWake, check_wake_step};

/// The berths of all vCPUs of a pool.
struct VcpuBerths {
    berths: Vec<Berth>,
    /// The pool keeps the berths, so they must not keep the pool.
    pool: Weak<Pool>,
}

impl HaltThreads for VcpuBerths {
    fn begin_sleep(&self, vcpu: OwnedVcpu) {
        let id = vcpu.id();
        // A berth has one vCPU, which is not in two places: it is free unless it is closing.
        if let Err(vcpu) = self.berths[id.index()].put(vcpu.into_vcpu())
            && let Some(pool) = self.pool.upgrade()
        {
            pool.end_sleep(OwnedVcpu::new(id, vcpu), 0);
        }
    }

    fn interrupt_sleep(&self, id: VcpuId) {
        self.berths[id.index()].recall();
    }
}

/// Starts a berth for each vCPU, on the host CPUs where that may run. `None` where KVM cannot end a halt
/// without delivering the interrupt; then halted vCPUs are looked at from time to time.
///
/// # Errors
/// If the host has no thread left.
pub fn start(
    pool: &Arc<Pool>,
    vcpus: &[NewVcpu],
) -> Result<Option<Arc<dyn HaltThreads>>, BerthError> {
    if !possible() {
        return Ok(None);
    }
    let own = sys::affinity();
    let made = (0..)
        .map(VcpuId)
        .zip(vcpus)
        .map(|(id, vcpu)| berth(pool, id, vcpu))
        .collect::<Result<Vec<_>, _>>();
    if let Ok(own) = own {
        // It was in force a moment ago.
        let _ = sys::set_affinity(&own);
    }
    let berths = Arc::new(VcpuBerths {
        berths: made?,
        pool: Arc::downgrade(pool),
    });
    Ok(Some(berths))
}

fn berth(pool: &Arc<Pool>, id: VcpuId, vcpu: &NewVcpu) -> Result<Berth, BerthError> {
    let since = Cell::new(pool.pins.epoch());
    let cpus = vcpu.host_cpus.clone();
    let pool = Arc::downgrade(pool);
    let on_wake = move |vcpu: Box<Vcpu>, end: BerthEnd, spent_ns: u64| {
        if let Some(pool) = pool.upgrade() {
            if since.replace(pool.pins.epoch()) != pool.pins.epoch() {
                // Refused only if none of them can be used; then it sleeps where it is.
                let _ = sys::set_affinity(&pool.usable_cpus.usable(&cpus));
            }
            give_back(&pool, OwnedVcpu::new(id, vcpu), end, spent_ns);
        }
    };
    let NewVcpu {
        index, guest_name, ..
    } = vcpu;
    let name = format!("berth{index}:{guest_name}")
        .chars()
        .take(15)
        .collect();
    // Its thread inherits that. All are CPUs of the pool, which this process may use.
    let _ = sys::set_affinity(&vcpu.host_cpus);
    Berth::new(name, ExitOnWake::Events, Box::new(on_wake))
}

/// Whether KVM can end a halt without delivering the interrupt.
pub(super) fn possible() -> bool {
    kvm::open().is_ok_and(|kvm| check_wake_step(&kvm).is_ok())
}

/// A vCPU's sleep is over, for the reason `end`; the thread where it slept has used `spent_ns` of CPU
/// time for it since it gave it back last.
pub(super) fn give_back(pool: &Pool, mut vcpu: OwnedVcpu, end: BerthEnd, spent_ns: u64) {
    let guest = Arc::clone(&vcpu.guest);
    if let BerthEnd::Exited(exit) = end {
        // Its one instruction needs an answer, which the policy's turn gives.
        vcpu.put_off(exit);
    }
    pool.end_sleep(vcpu, spent_ns);
    if guest.has_ended() {
        pool.remove_guest(&guest);
    }
}
