//! A device's IRQ: the reasons for it, as the driver reads them, and the eventfd that raises it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_ioctls::VmFd;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_INT_VRING;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Raises one device's IRQ.
#[derive(Debug)]
pub(super) struct IrqTrigger {
    irqfd: EventFd,
    /// Bits of the InterruptStatus register.
    reasons: AtomicU32,
}

impl IrqTrigger {
    /// A trigger for input `irq` of the guest's I/O APIC.
    pub(super) fn new(vm: &VmFd, irq: u32) -> io::Result<Self> {
        let trigger = Self::unconnected()?;
        vm.register_irqfd(&trigger.irqfd, irq)?;
        Ok(trigger)
    }

    /// A trigger that is connected to no virtual machine.
    pub(super) fn unconnected() -> io::Result<Self> {
        Ok(Self {
            irqfd: EventFd::new(EFD_NONBLOCK)?,
            reasons: AtomicU32::new(0),
        })
    }

    /// Raises the IRQ because the device has used a buffer of a queue.
    pub(super) fn queue_used(&self) {
        self.reasons
            .fetch_or(VIRTIO_MMIO_INT_VRING, Ordering::AcqRel);
        // The write fails only if the counter is at its maximum, and KVM resets the counter.
        let _ = self.irqfd.write(1);
    }

    /// The reasons that the driver has not acknowledged.
    pub(super) fn pending(&self) -> u32 {
        self.reasons.load(Ordering::Acquire)
    }

    /// The driver acknowledges these reasons.
    pub(super) fn acknowledge(&self, reasons: u32) {
        self.reasons.fetch_and(!reasons, Ordering::AcqRel);
    }

    /// Withdraws all reasons, because the driver has reset the device.
    pub(super) fn reset(&self) {
        self.acknowledge(u32::MAX);
    }
}
