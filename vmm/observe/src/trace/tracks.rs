//! The lanes of a trace: which there are, what they are called, how they are numbered.

use std::io::Write;

use vcpu_sched::{CpuId, VcpuId};

use super::packets::Packets;
use super::perfetto::{CounterDescriptor, ORDER_EXPLICIT, TrackDescriptor, UNIT_COUNT, UNIT_NS};

/// A vCPU as traces and metrics name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuName {
    /// Number of its guest.
    pub guest: usize,
    /// Name of its guest.
    pub guest_name: String,
    /// Its index within the guest.
    pub index: u32,
}

/// The host CPUs and vCPUs of a run, in the policy's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Numbers of the host CPUs.
    pub host_cpus: Vec<usize>,
    /// The vCPUs.
    pub vcpus: Vec<VcpuName>,
}

impl Names {
    /// Short names of the vCPUs: `v0`, with the guest's name before it where there are several.
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        let several = self
            .vcpus
            .iter()
            .any(|vcpu| vcpu.guest != self.vcpus[0].guest);
        let short = |vcpu: &VcpuName| match several {
            true => format!("{}/v{}", vcpu.guest_name, vcpu.index),
            false => format!("v{}", vcpu.index),
        };
        self.vcpus.iter().map(short).collect()
    }
}

/// The track above the host CPUs'; what concerns all of them stands there.
pub(crate) const POOL: u64 = 1;
/// How many vCPUs wait for a CPU.
pub(crate) const RUNNABLE: u64 = 2;

const CPU: u64 = 1 << 32;
const GUEST: u64 = 2 << 32;
const VCPU: u64 = 3 << 32;
const BUDGET: u64 = 4 << 32;
const DONATED: u64 = 5 << 32;

/// What a host CPU runs.
pub(crate) fn cpu(cpu: CpuId) -> u64 {
    CPU + u64::from(cpu.0)
}

/// What a vCPU does.
pub(crate) fn vcpu(vcpu: VcpuId) -> u64 {
    VCPU + u64::from(vcpu.0)
}

/// What a vCPU's claim does.
pub(crate) fn budget(vcpu: VcpuId) -> u64 {
    BUDGET + u64::from(vcpu.0)
}

/// CPU time that a vCPU paid for others.
pub(crate) fn donated(vcpu: VcpuId) -> u64 {
    DONATED + u64::from(vcpu.0)
}

/// Tells the trace of all tracks.
pub(crate) fn describe<W: Write>(packets: &mut Packets<W>, names: &Names) {
    let group = |uuid, name: &str, rank| TrackDescriptor {
        uuid: Some(uuid),
        name: Some(name.to_owned()),
        child_ordering: Some(ORDER_EXPLICIT),
        sibling_order_rank: Some(rank),
        ..TrackDescriptor::default()
    };
    let under = |parent, uuid, name: &str, rank| TrackDescriptor {
        parent_uuid: Some(parent),
        ..group(uuid, name, rank)
    };
    let counter = |unit, track| TrackDescriptor {
        counter: Some(CounterDescriptor { unit: Some(unit) }),
        ..track
    };
    packets.track(group(POOL, "host CPUs", 0));
    for (id, host_cpu) in (0..).zip(&names.host_cpus) {
        packets.track(under(
            POOL,
            cpu(CpuId(id)),
            &format!("cpu {host_cpu}"),
            id as i32,
        ));
    }
    packets.track(counter(
        UNIT_COUNT,
        under(POOL, RUNNABLE, "vCPUs waiting for a CPU", i32::MAX),
    ));
    let short = names.short();
    let mut last = None;
    for ((id, name), short) in (0..).zip(&names.vcpus).zip(&short) {
        let parent = GUEST + name.guest as u64;
        if last != Some(name.guest) {
            last = Some(name.guest);
            packets.track(group(
                parent,
                &format!("guest {}", name.guest_name),
                name.guest as i32 + 1,
            ));
        }
        let id = VcpuId(id);
        let rank = 3 * name.index as i32;
        packets.track(under(parent, vcpu(id), short, rank));
        packets.track(under(
            parent,
            budget(id),
            &format!("{short} budget"),
            rank + 1,
        ));
        let name = format!("{short} donated");
        packets.track(counter(
            UNIT_NS,
            under(parent, donated(id), &name, rank + 2),
        ));
    }
}
