//! A device's interrupt: why, as the driver reads it, and the line.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_ioctls::VmFd;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_VRING;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// One device's interrupt.
#[derive(Debug)]
pub(super) struct Interrupt {
    line: EventFd,
    why: AtomicU32,
}

impl Interrupt {
    /// On input `irq` of the I/O APIC.
    pub(super) fn new(vm: &VmFd, irq: u32) -> io::Result<Self> {
        let interrupt = Self::unconnected()?;
        vm.register_irqfd(&interrupt.line, irq)?;
        Ok(interrupt)
    }

    /// With a line that ends nowhere.
    pub(super) fn unconnected() -> io::Result<Self> {
        Ok(Self {
            line: EventFd::new(EFD_NONBLOCK)?,
            why: AtomicU32::new(0),
        })
    }

    /// The device has used something that the driver put into a queue.
    pub(super) fn queue_used(&self) {
        self.why.fetch_or(VIRTIO_MMIO_INT_VRING, Ordering::AcqRel);
        // Only a counter at its maximum refuses, and KVM empties it.
        let _ = self.line.write(1);
    }

    /// Reasons that the driver has not acknowledged.
    pub(super) fn pending(&self) -> u32 {
        self.why.load(Ordering::Acquire)
    }

    /// The driver has seen these reasons.
    pub(super) fn acknowledge(&self, seen: u32) {
        self.why.fetch_and(!seen, Ordering::AcqRel);
    }
}
