//! The KVM virtual machine of a guest, and its vCPUs before they run.

use kvm_bindings::{
    CpuId, KVM_CAP_HALT_POLL, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED,
    KVM_PIT_SPEAKER_DUMMY, kvm_enable_cap, kvm_mp_state, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::error::{GuestErrorKind, kvm_refused};
use crate::boot;
use crate::clock::GuestClock;
use crate::cpuid;
use crate::firmware_state;
use crate::loader::Entry;
use crate::memory::GuestMemory;

/// Three pages that KVM needs on Intel processors without unrestricted guest mode; in the MMIO
/// hole, below the BIOS of a PC.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Creates a virtual machine with interrupt controllers and `memory`, and `with_pit` with an interval
/// timer.
pub(super) fn create(
    kvm: &Kvm,
    memory: &GuestMemory,
    with_pit: bool,
) -> Result<VmFd, GuestErrorKind> {
    let vm = kvm.create_vm().map_err(kvm_refused("a virtual machine"))?;
    map_memory(&vm, memory).map_err(kvm_refused("the guest's memory"))?;
    vm.set_tss_address(TSS_ADDRESS)
        .map_err(kvm_refused("the TSS address"))?;
    vm.create_irq_chip()
        .map_err(kvm_refused("an interrupt controller"))?;
    if with_pit {
        vm.create_pit2(kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        })
        .map_err(kvm_refused("an interval timer"))?;
    }
    stop_halt_polling(&vm);
    Ok(vm)
}

fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in memory.regions().iter().enumerate() {
        let host = memory
            .regions()
            .get_host_address(region.start_addr())
            .map_err(|_| kvm_ioctls::Error::new(libc::EFAULT))?;
        // SAFETY: the region is mapped for as long as the guest, and thus its VM, lives; regions
        // do not overlap.
        unsafe {
            vm.set_user_memory_region(kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host as u64,
            })?;
        }
    }
    Ok(())
}

/// Without polling, a halted vCPU gives its host CPU up at once, and the scheduler notices. KVM before
/// 5.10 has only the module's parameter. The halt is then noticed later, by the time that KVM polls.
fn stop_halt_polling(vm: &VmFd) {
    let _ = vm.enable_cap(&kvm_enable_cap {
        cap: KVM_CAP_HALT_POLL,
        ..Default::default()
    });
}

/// Creates `cpus` vCPUs, vCPU 0 at `entry` and the others waiting to be started by it, and the clock of
/// the guest.
pub(super) fn create_vcpus(
    vm: &VmFd,
    cpus: u32,
    supported: &CpuId,
    entry: Entry,
) -> Result<(Vec<VcpuFd>, GuestClock), GuestErrorKind> {
    let mut fds = Vec::with_capacity(cpus as usize);
    let mut clock = GuestClock::new(1, 0);
    for index in 0..cpus {
        let fd = vm
            .create_vcpu(u64::from(index))
            .map_err(kvm_refused("a vCPU"))?;
        set_up_vcpu(&fd, index, cpus, supported, entry)
            .map_err(kvm_refused("a vCPU's registers"))?;
        clock = GuestClock::of_vcpu(&fd).map_err(kvm_refused("to report its TSC frequency"))?;
        fds.push(fd);
    }
    Ok((fds, clock))
}

fn set_up_vcpu(
    fd: &VcpuFd,
    index: u32,
    cpus: u32,
    supported: &CpuId,
    entry: Entry,
) -> Result<(), kvm_ioctls::Error> {
    fd.set_cpuid2(&cpuid::for_vcpu(supported, index, cpus))?;
    firmware_state::set(fd)?;
    if index == 0 {
        let mut sregs = fd.get_sregs()?;
        boot::enter(&mut sregs, entry);
        fd.set_sregs(&sregs)?;
        fd.set_regs(&boot::entry_registers(entry))?;
    }
    fd.set_mp_state(kvm_mp_state {
        mp_state: if index == 0 {
            KVM_MP_STATE_RUNNABLE
        } else {
            KVM_MP_STATE_UNINITIALIZED
        },
    })
}
