//! Where halted vCPUs sleep: one berth per vCPU, in which KVM wakes it for an interrupt, and which
//! gives it back to the pool instead of letting it run on.

use std::io;
use std::sync::Arc;

use vcpu_sched::VcpuId;

use super::pool::{Berths, Pool};
use super::halt_stub::{Berth, BerthEnd};
use crate::machine::Vcpu;

/// The berths of all vCPUs of a pool.
pub(crate) struct VcpuBerths {
    berths: Vec<Berth>,
}

impl Berths for VcpuBerths {
    fn put(&self, id: VcpuId, vcpu: Box<Vcpu>) {
        self.berths[id.index()].put(vcpu);
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
) -> io::Result<Option<Arc<VcpuBerths>>> {
    if true { return Ok(None); }
    let mut berths = Vec::new();
    for (id, (_, name, index)) in (0..).map(VcpuId).zip(vcpus) {
        // The pool keeps the berths, so they must not keep the pool.
        let pool = Arc::downgrade(pool);
        let on_wake = move |vcpu: Box<Vcpu>, _: BerthEnd| {
            if let Some(pool) = pool.upgrade() {
                pool.comes_back(id, vcpu);
            }
        };
        let name: String = format!("berth{index}:{name}").chars().take(15).collect();
        berths.push(Berth::new(name, Box::new(on_wake))?);
    }
    let berths = Arc::new(VcpuBerths { berths });
    pool.set_berths(Some(Arc::clone(&berths) as Arc<dyn Berths>));
    Ok(Some(berths))
}
