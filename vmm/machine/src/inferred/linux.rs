//! The profile of Linux: its preempt count.
//!
//! A profile of another system is a file like this one: what a scan of the kernel finds, how it is found again
//! for each vCPU, and what its values mean.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::registers::{self, Segments, StoppedVcpu};
use super::scan::{self, Finding};
use super::scanner::Scanned;

/// The topmost bit is clear while a task switch is due. It is no part of the count.
const NEED_RESCHED: u32 = 1 << 31;
/// No kernel uses these. Below them are 8 bits for sections that must not be preempted, 8 for softirqs, and those
/// for hardirqs and NMIs, whose places differ from kernel to kernel.
const UNUSED: u32 = 0b11 << 29;
const SECTIONS: u32 = 0xff;
/// No Linux code nests more spinlocks than that.
const DEEPEST: u32 = 64;

/// The word in which Linux counts, for each CPU, in how many sections the CPU is that must not be preempted. Of a
/// count of 64 bits it is the lower half: in the upper one there is only the bit for a due task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PreemptCount(pub(super) u32);

impl PreemptCount {
    /// Whether the CPU is in no such section: it can be preempted at no cost to others.
    pub(super) const fn is_zero(self) -> bool {
        self.0 & !NEED_RESCHED == 0
    }

    /// Whether Linux can have this value.
    pub(super) const fn is_plausible(self) -> bool {
        self.0 & UNUSED == 0 && self.0 & SECTIONS <= DEEPEST
    }
}

/// Where a kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundCount {
    /// Of the count, from the GS base.
    pub(super) offset: u64,
    /// The virtual address of the bytes that end with an instruction which names the count, or of the entry for
    /// system calls.
    pub(super) witness: u64,
    /// The guest-physical address of these bytes.
    witness_physical: u64,
    /// Whether the witness is an instruction that names the count. Where symbols give the place of the count, it is
    /// the entry for system calls.
    names_count: bool,
}

impl FoundCount {
    /// What the scan has found, if it has.
    pub(super) fn of(scanned: &Scanned) -> Option<Self> {
        let Finding::Found(offset) = scanned.finding else {
            return None;
        };
        let witness = scanned.witness.unwrap_or(scanned.request.address);
        let ahead = witness.wrapping_sub(scanned.request.address);
        Some(Self {
            offset,
            witness,
            witness_physical: scanned.request.physical.wrapping_add(ahead),
            names_count: scanned.witness.is_some(),
        })
    }

    /// Whether a vCPU at `rip` is in user mode: in the half of the address space that is not the kernel's.
    pub(super) const fn is_user_mode(&self, rip: u64) -> bool {
        !registers::in_same_half(rip, self.witness)
    }

    /// The virtual address of the count of a vCPU in the kernel with these segments; `None` if its GS is not
    /// the kernel's.
    pub(super) fn address(&self, segments: Segments) -> Option<u64> {
        let address = segments.gs_base.wrapping_add(self.offset);
        registers::in_same_half(address, self.witness).then_some(address)
    }

    /// Whether the kernel that `vcpu` runs still has the witness where it was. After kexec it has another
    /// instruction there, or none. Only the place of an entry for system calls is compared, not its code. To be
    /// called of a vCPU in the kernel.
    pub(super) fn is_in_text(&self, vcpu: &mut impl StoppedVcpu, memory: &GuestMemoryMmap) -> bool {
        if vcpu.translate(self.witness) != Some(self.witness_physical) {
            return false;
        }
        if !self.names_count {
            return true;
        }
        let mut code = [0; scan::INSTRUCTION];
        let is_read = memory.read_slice(&mut code, GuestAddress(self.witness_physical));
        is_read.is_ok() && scan::names(self.witness, &code, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_for_a_due_task_switch_is_no_count() {
        for (word, is_zero) in [
            (0, true),
            (NEED_RESCHED, true),
            (NEED_RESCHED | 2, false),
            (1, false),
        ] {
            assert_eq!(PreemptCount(word).is_zero(), is_zero, "{word:#x}");
        }
    }

    #[test]
    fn sections_and_interrupts_are_plausible_and_addresses_and_characters_are_not() {
        for word in [0, 1, 0x8000_0003, 0x200, 0x1_0001, 0x10_0000, 0x1f00_0001] {
            assert!(PreemptCount(word).is_plausible(), "{word:#x}");
        }
        for word in [u32::MAX, 0x41, 0x7fff_0000, 0x2000_0000, 0xffff_ff00] {
            assert!(!PreemptCount(word).is_plausible(), "{word:#x}");
        }
    }

    #[test]
    fn user_mode_is_the_half_of_the_address_space_that_is_not_the_kernels() {
        let count = |witness| FoundCount {
            offset: 0x20,
            witness,
            witness_physical: 0,
            names_count: true,
        };
        let (high, low) = (0xffff_ffff_8100_0000, 0x40_0000);
        assert!(count(high).is_user_mode(low));
        assert!(!count(high).is_user_mode(high));
        assert!(!count(low).is_user_mode(low), "a small system");
        let gs = |gs_base| Segments {
            gs_base,
            is_cpl3: false,
        };
        let percpu = 0xffff_8880_0000_0000;
        assert_eq!(count(high).address(gs(percpu)), Some(percpu + 0x20));
        assert_eq!(count(high).address(gs(low)), None, "GS of a program");
    }
}
