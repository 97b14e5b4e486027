//! What is inferred of any guest, whatever its kernel.
//!
//! A vCPU that runs kernel code with interrupts switched off, at a PAUSE instruction, waits for another one:
//! a kernel that could wait with interrupts on, or sleep, would. Interrupts are off by the flag IF, or by a task
//! priority as high as Windows has it under a spinlock.
//!
//! That a vCPU holds something cannot be inferred so. Kernel mode alone nearly always means a system call, and a
//! vCPU that is suspected because of it uses up a waiter's budget for nothing. So this layer never defers a
//! preemption, and makes no vCPU a suspect. Nor does it infer anything from a halt with interrupts off: a vCPU that
//! the guest has taken offline looks the same.

use vm_memory::GuestMemoryMmap;

use super::pause::{self, CodePages};
use super::registers::{StoppedVcpu, Unreadable};

/// The task priority (CR8) at which Windows holds and awaits spinlocks, DISPATCH_LEVEL.
const SPINLOCK_PRIORITY: u64 = 2;

/// Whether `vcpu` waits for another one. Costs no system call while interrupts are on.
pub(super) fn waits(
    vcpu: &mut impl StoppedVcpu,
    code: &CodePages,
    memory: &GuestMemoryMmap,
    now: u64,
) -> Result<bool, Unreadable> {
    if vcpu.takes_interrupts() && vcpu.task_priority() < SPINLOCK_PRIORITY {
        return Ok(false);
    }
    Ok(pause::is_near(vcpu, code, memory, now)? && !vcpu.segments()?.is_cpl3)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::super::registers::Segments;
    use super::super::registers::tests::FakeVcpu;
    use super::*;
    use crate::memory::GuestMemory;

    const RIP: u64 = 0xffff_ffff_8123_4500;

    /// Whether a vCPU waits that `change` makes of one in the kernel at a PAUSE.
    fn is_waiter(change: impl FnOnce(&mut FakeVcpu)) -> bool {
        let memory = GuestMemory::new(4 << 20).expect("memory");
        let pause = [0xf3u8, 0x90];
        let written = memory.regions().write_slice(&pause, GuestAddress(0x1500));
        written.expect("in RAM");
        let mut vcpu = FakeVcpu::at(RIP, &[(RIP >> 12, 1)]);
        change(&mut vcpu);
        waits(&mut vcpu, &CodePages::default(), memory.regions(), 0).expect("readable")
    }

    #[test]
    fn a_kernel_at_a_pause_with_interrupts_off_waits() {
        assert!(is_waiter(|vcpu| vcpu.interrupts = false));
        assert!(is_waiter(|vcpu| vcpu.task_priority = SPINLOCK_PRIORITY));
    }

    #[test]
    fn with_interrupts_on_or_elsewhere_or_in_user_mode_it_does_not() {
        assert!(!is_waiter(|_| ()));
        assert!(!is_waiter(|vcpu| vcpu.task_priority = 1));
        assert!(!is_waiter(|vcpu| {
            vcpu.interrupts = false;
            vcpu.rip += 0x100;
        }));
        assert!(!is_waiter(|vcpu| {
            vcpu.interrupts = false;
            vcpu.segments = Ok(Segments {
                gs_base: 0,
                is_cpl3: true,
            });
        }));
    }

    #[test]
    fn with_interrupts_on_nothing_is_read() {
        let memory = GuestMemory::new(4 << 20).expect("memory");
        let mut vcpu = FakeVcpu::at(RIP, &[]);
        let waits = waits(&mut vcpu, &CodePages::default(), memory.regions(), 0);
        assert_eq!((waits, vcpu.reads), (Ok(false), 0));
    }
}
