//! What is read of a vCPU that has left the guest. All of it is what the guest has put there.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// MSR_LSTAR: where 64-bit system calls enter the kernel.
const LSTAR: u32 = 0xc000_0082;
const RPL: u16 = 3;

/// The registers of a vCPU that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) rip: u64,
    pub(super) gs_base: u64,
    /// Whether the code segment has privilege level 3.
    pub(super) is_cpl3: bool,
}

impl Registers {
    /// The registers of `fd`; `None` if they cannot be read, as those of a confidential guest.
    pub(super) fn of(fd: &VcpuFd) -> Option<Self> {
        let sregs = fd.get_sregs().ok()?;
        Some(Self {
            rip: rip(fd)?,
            gs_base: sregs.gs.base,
            is_cpl3: sregs.cs.selector & RPL == RPL,
        })
    }

    /// Whether this is user mode of a kernel that has code at `text`. A kernel and its user mode have the two
    /// halves of the address space. (The kernel of a small system may itself run at level 3.)
    pub(super) fn is_user_mode(&self, text: u64) -> bool {
        self.is_cpl3 && !in_same_half(self.rip, text)
    }
}

/// The instruction pointer of `fd`.
pub(super) fn rip(fd: &VcpuFd) -> Option<u64> {
    Some(fd.get_regs().ok()?.rip)
}

/// The guest-physical address of the virtual `address`, by the page tables of `fd`.
pub(super) fn translate(fd: &VcpuFd, address: u64) -> Option<u64> {
    let translation = fd.translate_gva(address).ok()?;
    (translation.valid != 0).then_some(translation.physical_address)
}

/// Where system calls enter the kernel, if the guest has set that.
pub(super) fn syscall_entry(fd: &VcpuFd) -> Option<u64> {
    let entry = kvm_msr_entry {
        index: LSTAR,
        ..Default::default()
    };
    let mut msrs = Msrs::from_entries(&[entry]).ok()?;
    fd.get_msrs(&mut msrs).ok().filter(|&count| count == 1)?;
    let address = msrs.as_slice().first()?.data;
    (address != 0).then_some(address)
}

/// Whether both virtual addresses are in the same half of the address space.
pub(super) const fn in_same_half(a: u64, b: u64) -> bool {
    (a ^ b) >> 63 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_mode_is_level_3_in_the_half_that_is_not_the_kernels() {
        let (high, low) = (0xffff_ffff_8100_0000, 0x40_0000);
        let at = |rip, is_cpl3| Registers {
            rip,
            gs_base: 0,
            is_cpl3,
        };
        assert!(at(low, true).is_user_mode(high));
        assert!(!at(high, false).is_user_mode(high));
        assert!(
            !at(low, false).is_user_mode(high),
            "a kernel at an early address"
        );
        assert!(
            !at(low, true).is_user_mode(low),
            "a small kernel at level 3"
        );
    }
}
