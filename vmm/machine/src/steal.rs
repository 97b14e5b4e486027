//! Steal time in KVM's guest structure, written by Baton.
//!
//! KVM derives steal time from the run delay of the thread that runs the vCPU. That delay means nothing
//! where the host's scheduler does not decide which vCPU runs. So Baton traps the MSR by which a guest
//! registers its structure, and writes the structure itself. `steal` is the time for which the vCPU was
//! runnable and not running, for want of a CPU or of a budget, and the time that the host took from it while
//! it had a CPU. `preempted` is whether the vCPU is runnable and not running now. Linux shows the former
//! as `st`, and by the latter stops spinning for the owner of a lock, without any patch.
//!
//! The structure also carries TLB flushes to preempted vCPUs, which only KVM could carry out. That
//! feature is withdrawn (`cpuid.rs`).
//!
//! Source: Linux, `Documentation/virt/kvm/x86/msr.rst` (MSR_KVM_STEAL_TIME).

use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, kvm_enable_cap};
use kvm_ioctls::{
    MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd,
};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// MSR_KVM_STEAL_TIME.
pub const MSR: u32 = 0x4b56_4d03;
/// The MSR's bit by which the guest registers a structure.
const ENABLED: u64 = 1;
/// Bits of the MSR that must be zero.
const RESERVED: u64 = 0x3e;
/// `preempted`: the vCPU is.
const PREEMPTED: u8 = 1;

/// `struct kvm_steal_time`.
#[repr(C, align(64))]
struct StealRecord {
    steal: u64,
    version: u32,
    flags: u32,
    preempted: u8,
    pad: [u8; 47],
}

const _: () = assert!(size_of::<StealRecord>() == 64);

/// The MSR and the structure of one vCPU.
#[derive(Debug, Default)]
struct VcpuSteal {
    msr: AtomicU64,
    record: AtomicPtr<StealRecord>,
}

/// The structures of a guest's vCPUs, by index. The value lives beside the guest's memory and is dropped
/// before the memory.
#[derive(Debug)]
pub struct StealTime {
    vcpus: Vec<VcpuSteal>,
}

impl StealTime {
    /// For `vcpus` vCPUs.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            vcpus: (0..vcpus).map(|_| VcpuSteal::default()).collect(),
        }
    }

    /// Traps the MSR: its accesses become exits to user space.
    ///
    /// # Errors
    /// If KVM cannot filter MSRs (before Linux 5.10).
    pub(crate) fn trap(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_X86_USER_SPACE_MSR,
            args: [MsrExitReason::Filter.bits().into(), 0, 0, 0],
            ..Default::default()
        })?;
        vm.set_msr_filter(
            MsrFilterDefaultAction::ALLOW,
            &[MsrFilterRange {
                flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
                base: MSR,
                msr_count: 1,
                bitmap: &[0],
            }],
        )
    }

    /// Carries out a write of `value` to the MSR by vCPU `index`, in the guest's `memory`. False: the
    /// value makes no sense, and nothing has changed.
    pub(crate) fn write_msr(&self, index: u32, value: u64, memory: &GuestMemoryMmap) -> bool {
        let Some(vcpu) = self.vcpus.get(index as usize) else {
            return false;
        };
        if value & RESERVED != 0 {
            return false;
        }
        let record = if value & ENABLED == 0 {
            ptr::null_mut()
        } else {
            let start = GuestAddress(value & !(ENABLED | RESERVED));
            // Regions are whole pages, so an aligned structure that starts in one lies in it.
            match memory.get_host_address(start) {
                Ok(address) => address.cast(),
                Err(_) => return false,
            }
        };
        vcpu.msr.store(value, Ordering::Relaxed);
        vcpu.record.store(record, Ordering::Release);
        true
    }

    /// The value that vCPU `index` reads from the MSR.
    pub(crate) fn read_msr(&self, index: u32) -> u64 {
        self.vcpus
            .get(index as usize)
            .map_or(0, |vcpu| vcpu.msr.load(Ordering::Relaxed))
    }

    /// Adds `ns` to the time for which vCPU `index` was runnable and did not run. To be called while the
    /// vCPU does not run, by one thread at a time.
    pub fn add(&self, index: u32, ns: u64) {
        let Some(record) = self.record(index) else {
            return;
        };
        // The version is odd while the structure changes, as the guest expects. The guest may have written
        // any version: it is only made odd, and then even.
        let version = record.version().load(Ordering::Relaxed) | 1;
        record.version().store(version, Ordering::Relaxed);
        fence(Ordering::Release);
        record.steal().fetch_add(ns, Ordering::Relaxed);
        record
            .version()
            .store(version.wrapping_add(1), Ordering::Release);
    }

    /// Records whether vCPU `index` has lost its CPU though it has something to run.
    pub fn set_preempted(&self, index: u32, preempted: bool) {
        if let Some(record) = self.record(index) {
            let value = if preempted { PREEMPTED } else { 0 };
            record.preempted().store(value, Ordering::Release);
        }
    }

    fn record(&self, index: u32) -> Option<MappedRecord<'_>> {
        let record = self
            .vcpus
            .get(index as usize)?
            .record
            .load(Ordering::Acquire);
        (!record.is_null()).then_some(MappedRecord {
            record,
            _owner: self,
        })
    }
}

/// A registered structure in guest memory, with its fields as atomics.
#[derive(Clone, Copy)]
struct MappedRecord<'a> {
    record: *mut StealRecord,
    // The structure lives as long as the guest's memory, which outlives `StealTime`.
    _owner: &'a StealTime,
}

impl<'a> MappedRecord<'a> {
    fn steal(self) -> &'a AtomicU64 {
        // SAFETY: `write_msr` checked that the structure, which is aligned, is in guest memory, which
        // stays mapped longer than 'a. The guest may write at any time; this process touches it
        // only by atomics.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.record).steal) }
    }

    fn version(self) -> &'a AtomicU32 {
        // SAFETY: as in `steal`.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.record).version) }
    }

    fn preempted(self) -> &'a AtomicU8 {
        // SAFETY: as in `steal`.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.record).preempted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).expect("memory")
    }

    #[test]
    fn steal_time_and_preemption_are_where_linux_reads_them() {
        let memory = memory();
        let steal = StealTime::new(2);
        assert!(steal.write_msr(1, 0x1040 | ENABLED, &memory));
        steal.add(1, 500);
        steal.add(1, 7);
        steal.set_preempted(1, true);
        let read = |at| memory.read_obj::<u64>(GuestAddress(at)).expect("in memory");
        assert_eq!(read(0x1040), 507);
        let version: u32 = memory.read_obj(GuestAddress(0x1048)).expect("in memory");
        assert_eq!(version, 4, "even, and moved on twice");
        let preempted: u8 = memory.read_obj(GuestAddress(0x1050)).expect("in memory");
        assert_eq!(preempted, 1);
        assert_eq!(steal.read_msr(1), 0x1041);
    }

    #[test]
    fn a_structure_outside_ram_or_with_reserved_bits_is_refused_and_the_old_one_stays() {
        let memory = memory();
        let steal = StealTime::new(1);
        assert!(steal.write_msr(0, 0x1000 | ENABLED, &memory));
        for bad in [0x1000 | 2 | ENABLED, 0x4000 | ENABLED, u64::MAX] {
            assert!(!steal.write_msr(0, bad, &memory), "{bad:#x}");
        }
        assert!(
            !steal.write_msr(1, 0x1000 | ENABLED, &memory),
            "no such vCPU"
        );
        assert_eq!(steal.read_msr(0), 0x1001);
    }

    #[test]
    fn without_a_structure_nothing_is_written() {
        let memory = memory();
        let steal = StealTime::new(1);
        assert!(steal.write_msr(0, 0x1000 | ENABLED, &memory));
        assert!(steal.write_msr(0, 0, &memory));
        steal.add(0, 5);
        steal.set_preempted(0, true);
        assert_eq!(
            memory.read_obj::<u64>(GuestAddress(0x1000)).expect("ram"),
            0
        );
    }

    #[test]
    fn a_version_that_the_guest_left_odd_becomes_even() {
        let memory = memory();
        memory
            .write_obj(u32::MAX, GuestAddress(0x1008))
            .expect("in memory");
        let steal = StealTime::new(1);
        assert!(steal.write_msr(0, 0x1000 | ENABLED, &memory));
        steal.add(0, 1);
        assert_eq!(
            memory.read_obj::<u32>(GuestAddress(0x1008)).expect("ram"),
            0
        );
    }
}
