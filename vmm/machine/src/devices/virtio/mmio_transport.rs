//! A window: the registers of one device in guest memory, and its lines to KVM and to its thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_os::nospec;
use kvm_ioctls::{IoEventAddress, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::cpu_grant::Granter;
use super::irq_trigger::Interrupt;
use super::mailbox::Setup;
use super::registers::{Action, CONFIG, Registers};
use super::worker::Worker;
use super::{Device, DeviceError};
use crate::layout::MMIO_HOLE_START;

/// The first window; the others follow.
const FIRST: u64 = MMIO_HOLE_START + 0x1000_0000;
/// Length of a window.
const LENGTH: u64 = 0x1000;
/// Input of the I/O APIC for the first window: those below are a PC's.
const FIRST_IRQ: u32 = 16;

/// Where a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Guest address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// Input of the I/O APIC; edges.
    pub irq: u32,
}

impl Place {
    pub(super) fn of_slot(slot: u32) -> Self {
        Self {
            base: FIRST + u64::from(slot) * LENGTH,
            length: LENGTH,
            irq: FIRST_IRQ + slot,
        }
    }

    /// How far `address` is into the window, if it is inside.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        address
            .checked_sub(self.base)
            .filter(|offset| *offset < self.length)
    }
}

/// One window and its device.
#[derive(Debug)]
pub(super) struct Window {
    place: Place,
    memory: GuestMemoryMmap,
    registers: Mutex<Registers>,
    config: Vec<u8>,
    interrupt: Arc<Interrupt>,
    worker: Worker,
}

impl Window {
    /// Puts `device` into slot `slot` of the guest `vm`.
    pub(super) fn open(
        vm: &VmFd,
        memory: &GuestMemoryMmap,
        slot: u32,
        device: Box<dyn Device>,
    ) -> Result<Self, DeviceError> {
        let place = Place::of_slot(slot);
        let host = |error: kvm_ioctls::Error| DeviceError::Host(error.into());
        let interrupt = Arc::new(Interrupt::new(vm, place.irq)?);
        let notify = IoEventAddress::Mmio(place.base + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
        let mut kicks = Vec::with_capacity(device.queues());
        for queue in 0..device.queues() as u32 {
            let kick = EventFd::new(EFD_NONBLOCK)?;
            vm.register_ioevent(&kick, &notify, queue).map_err(host)?;
            kicks.push(kick);
        }
        let registers = Registers::new(device.kind(), device.features(), device.queues());
        Ok(Self {
            place,
            memory: memory.clone(),
            registers: Mutex::new(registers),
            config: device.config(),
            interrupt: Arc::clone(&interrupt),
            worker: Worker::spawn(slot, device, kicks, memory.clone(), interrupt)?,
        })
    }

    /// From now on the device's thread works only when `granter` lets it.
    pub(super) fn ask_for_leave(&self, granter: Arc<dyn Granter>) {
        self.worker.ask_for_leave(granter);
    }

    /// Asks the device's thread to end, and does not wait for it.
    pub(super) fn end(&self) {
        self.worker.end();
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// A read `offset` bytes into the window. Registers are 32 bits wide.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            let start = (offset - CONFIG) as usize;
            for (at, byte) in (start..).zip(data) {
                *byte = nospec::get(&self.config, at).copied().unwrap_or(0);
            }
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(&mut *data) {
            let mut registers = self.lock();
            let touched = self.worker.access().touched();
            if registers.completes_reset(touched) {
                // The thread may have raised it in its last moment.
                self.interrupt.acknowledge(u32::MAX);
            }
            let pending = self.interrupt.pending();
            *word = registers.read(offset, pending, touched).to_le_bytes();
        } else {
            data.fill(0xff);
        }
    }

    /// A write `offset` bytes into the window. The configuration space cannot be written.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        if offset >= CONFIG {
            return;
        }
        let value = u32::from_le_bytes(bytes);
        let mut registers = self.lock();
        match registers.write(offset, value, &self.memory) {
            Action::None => {}
            Action::Acknowledge(seen) => self.interrupt.acknowledge(seen),
            // In the order in which the driver wants it, so under the lock; neither waits.
            Action::Start(setup) => self.worker.set_up(setup),
            Action::Change(index, queue) => self.worker.change(index, queue),
            Action::Stop => {
                self.worker.set_up(Setup::default());
                self.interrupt.acknowledge(u32::MAX);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
