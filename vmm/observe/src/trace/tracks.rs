//! The tracks of a trace: which there are, their names and their numbers.

use std::io::Write;

use vcpu_sched::CpuId;

use super::joined_names::JoinedName;
use super::packets::Packets;
use super::perfetto::{CounterDescriptor, ORDER_EXPLICIT, TrackDescriptor, UNIT_COUNT, UNIT_NS};
use crate::names::Names;

/// The track above those of the host CPUs. It shows what concerns all of them.
pub(super) const POOL: u64 = 1;
/// A counter: how many vCPUs wait for a CPU.
pub(super) const RUNNABLE: u64 = 2;

const CPU: u64 = 1 << 32;
const GUEST: u64 = 2 << 32;
const VCPU: u64 = 3 << 32;
const BUDGET: u64 = 4 << 32;
const DONATED: u64 = 5 << 32;
/// Guests that have joined since the start, by the numbers of their first vCPUs.
const JOINED_GUEST: u64 = 6 << 32;

/// The track of what `cpu` runs.
pub(super) fn cpu(cpu: CpuId) -> u64 {
    CPU + u64::from(cpu.0)
}

/// The tracks of one vCPU, by a number that is given once in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VcpuTracks(pub(super) u32);

impl VcpuTracks {
    /// The track of what the vCPU does.
    pub(super) fn vcpu(self) -> u64 {
        VCPU + u64::from(self.0)
    }

    /// The track of what the scheduling context of the vCPU does.
    pub(super) fn budget(self) -> u64 {
        BUDGET + u64::from(self.0)
    }

    /// A counter: CPU time that other vCPUs ran on the budget of the vCPU.
    pub(super) fn donated(self) -> u64 {
        DONATED + u64::from(self.0)
    }

    /// Writes the descriptions of the tracks of vCPU `index`, called `name`, below those of `guest`.
    fn describe<W: Write>(self, packets: &mut Packets<W>, guest: u64, index: u32, name: &str) {
        let rank = 3 * index as i32;
        packets.track(below(guest, self.vcpu(), name, rank));
        let own_budget = format!("{name} budget");
        packets.track(below(guest, self.budget(), &own_budget, rank + 1));
        let own_donated = format!("{name} donated");
        let track = below(guest, self.donated(), &own_donated, rank + 2);
        packets.track(counter(UNIT_NS, track));
    }
}

/// Writes the descriptions of the tracks that there are from the start.
pub(super) fn describe<W: Write>(packets: &mut Packets<W>, names: &Names) {
    describe_host_cpus(packets, names);
    let short = names.short();
    let mut last_guest = None;
    for ((number, name), short) in (0..).zip(&names.vcpus).zip(&short) {
        let parent = GUEST + name.guest as u64;
        if last_guest != Some(name.guest) {
            last_guest = Some(name.guest);
            let guest = format!("guest {}", name.guest_name);
            packets.track(group(parent, &guest, name.guest as i32 + 1));
        }
        VcpuTracks(number).describe(packets, parent, name.index, short);
    }
}

/// Writes the descriptions of the tracks of a vCPU that has joined, and for the first of a guest that of the
/// guest. Returns the vCPU's short name.
pub(super) fn describe_joined<W: Write>(
    packets: &mut Packets<W>,
    tracks: VcpuTracks,
    joined: &JoinedName,
) -> String {
    let JoinedName { name, first } = joined;
    let parent = JOINED_GUEST + u64::from(*first);
    if tracks == VcpuTracks(*first) {
        let guest = format!("guest {}", name.guest_name);
        let rank = i32::try_from(*first).unwrap_or(i32::MAX);
        packets.track(group(parent, &guest, rank.saturating_add(1)));
    }
    let short = format!("{}/v{}", name.guest_name, name.index);
    tracks.describe(packets, parent, name.index, &short);
    short
}

fn describe_host_cpus<W: Write>(packets: &mut Packets<W>, names: &Names) {
    packets.track(group(POOL, "host CPUs", 0));
    for (id, host_cpu) in (0..).zip(&names.host_cpus) {
        let name = format!("cpu {host_cpu}");
        packets.track(below(POOL, cpu(CpuId(id)), &name, id as i32));
    }
    let waiting = below(POOL, RUNNABLE, "vCPUs waiting for a CPU", i32::MAX);
    packets.track(counter(UNIT_COUNT, waiting));
}

/// A track at the top, at place `rank`, which orders the tracks below it by their ranks.
fn group(uuid: u64, name: &str, rank: i32) -> TrackDescriptor {
    TrackDescriptor {
        uuid: Some(uuid),
        name: Some(name.to_owned()),
        child_ordering: Some(ORDER_EXPLICIT),
        sibling_order_rank: Some(rank),
        ..TrackDescriptor::default()
    }
}

fn below(parent: u64, uuid: u64, name: &str, rank: i32) -> TrackDescriptor {
    TrackDescriptor {
        parent_uuid: Some(parent),
        ..group(uuid, name, rank)
    }
}

fn counter(unit: i32, track: TrackDescriptor) -> TrackDescriptor {
    TrackDescriptor {
        counter: Some(CounterDescriptor { unit: Some(unit) }),
        ..track
    }
}
