//! What is read of a vCPU that has left the guest. All of it is what the guest has put there.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Cap, SyncReg, VcpuFd, VmFd};

/// MSR_LSTAR: where 64-bit system calls enter the kernel.
const LSTAR: u32 = 0xc000_0082;
const RPL: u16 = 3;

/// KVM does not report the registers of this vCPU, as those of a confidential guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The segment registers that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segments {
    pub(super) gs_base: u64,
    /// Whether the code segment has privilege level 3.
    pub(super) is_cpl3: bool,
}

/// A vCPU that has left the guest.
pub(crate) trait StoppedVcpu {
    /// Whether it accepts interrupts (the flag IF). Costs no system call.
    fn takes_interrupts(&mut self) -> bool;

    /// Its task priority (CR8): interrupts of lower priorities wait. Costs no system call.
    fn task_priority(&mut self) -> u64;

    /// Its instruction pointer. Costs no system call where KVM copies registers at each exit.
    fn rip(&mut self) -> Result<u64, Unreadable>;

    fn segments(&mut self) -> Result<Segments, Unreadable>;

    /// Where system calls enter the kernel, if the guest has set that.
    fn syscall_entry(&mut self) -> Result<Option<u64>, Unreadable>;

    /// The guest-physical address of the virtual `address`, by the vCPU's page tables.
    fn translate(&mut self, address: u64) -> Option<u64>;
}

/// Requests of KVM, if it can, that it copies the general registers of `fd` to the run page at each exit. The
/// copy takes less time than can be measured, and an ioctl that reads the registers takes microseconds.
pub(crate) fn copy_at_exits(vm: &VmFd, fd: &mut VcpuFd) {
    let general = SyncReg::Register;
    // The capability's value has a bit for each set of registers.
    let copied = vm.check_extension_int(Cap::SyncRegs);
    if u64::try_from(copied).is_ok_and(|copied| copied & general as u64 != 0) {
        fd.set_sync_valid_reg(general);
    }
}

impl StoppedVcpu for VcpuFd {
    fn takes_interrupts(&mut self) -> bool {
        self.get_kvm_run().if_flag != 0
    }

    fn task_priority(&mut self) -> u64 {
        self.get_kvm_run().cr8
    }

    fn rip(&mut self) -> Result<u64, Unreadable> {
        if self.get_kvm_run().kvm_valid_regs & SyncReg::Register as u64 != 0 {
            return Ok(self.sync_regs().regs.rip);
        }
        self.get_regs().map(|regs| regs.rip).or(Err(Unreadable))
    }

    fn segments(&mut self) -> Result<Segments, Unreadable> {
        let sregs = self.get_sregs().or(Err(Unreadable))?;
        Ok(Segments {
            gs_base: sregs.gs.base,
            is_cpl3: sregs.cs.selector & RPL == RPL,
        })
    }

    fn syscall_entry(&mut self) -> Result<Option<u64>, Unreadable> {
        let entry = kvm_msr_entry {
            index: LSTAR,
            ..Default::default()
        };
        let mut msrs = Msrs::from_entries(&[entry]).or(Err(Unreadable))?;
        match self.get_msrs(&mut msrs) {
            Ok(1) => Ok(msrs.as_slice().first().map(|entry| entry.data)),
            _ => Err(Unreadable),
        }
        .map(|address| address.filter(|&address| address != 0))
    }

    fn translate(&mut self, address: u64) -> Option<u64> {
        let translation = self.translate_gva(address).ok()?;
        (translation.valid != 0).then_some(translation.physical_address)
    }
}

/// Whether both virtual addresses are in the same half of the address space. A kernel and its user mode have
/// the two halves. (A small system may have all in one half.)
pub(super) const fn in_same_half(a: u64, b: u64) -> bool {
    (a ^ b) >> 63 == 0
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A vCPU whose registers a test sets. `reads` counts what costs a system call.
    #[derive(Clone, Debug)]
    pub(in super::super) struct FakeVcpu {
        pub(in super::super) interrupts: bool,
        pub(in super::super) task_priority: u64,
        pub(in super::super) rip: u64,
        pub(in super::super) segments: Result<Segments, Unreadable>,
        pub(in super::super) entry: Result<Option<u64>, Unreadable>,
        /// From virtual to physical page numbers.
        pub(in super::super) pages: BTreeMap<u64, u64>,
        pub(in super::super) reads: u32,
    }

    impl FakeVcpu {
        /// In the kernel at `rip`, with these pages.
        pub(in super::super) fn at(rip: u64, pages: &[(u64, u64)]) -> Self {
            Self {
                interrupts: true,
                task_priority: 0,
                rip,
                segments: Ok(Segments {
                    gs_base: 0,
                    is_cpl3: false,
                }),
                entry: Ok(None),
                pages: pages.iter().copied().collect(),
                reads: 0,
            }
        }
    }

    impl StoppedVcpu for FakeVcpu {
        fn takes_interrupts(&mut self) -> bool {
            self.interrupts
        }

        fn task_priority(&mut self) -> u64 {
            self.task_priority
        }

        fn rip(&mut self) -> Result<u64, Unreadable> {
            Ok(self.rip)
        }

        fn segments(&mut self) -> Result<Segments, Unreadable> {
            self.reads += 1;
            self.segments
        }

        fn syscall_entry(&mut self) -> Result<Option<u64>, Unreadable> {
            self.reads += 1;
            self.entry
        }

        fn translate(&mut self, address: u64) -> Option<u64> {
            self.reads += 1;
            let page = self.pages.get(&(address >> 12))?;
            Some(page << 12 | address & 0xfff)
        }
    }

    #[test]
    fn a_kernel_and_its_user_mode_have_different_halves_of_the_address_space() {
        let (high, low) = (0xffff_ffff_8100_0000, 0x40_0000);
        assert!(in_same_half(high, u64::MAX) && in_same_half(low, 0));
        assert!(!in_same_half(high, low));
    }
}
