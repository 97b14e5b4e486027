//! The vCPUs' side of one device: its registers in guest memory (virtio-mmio), connected to KVM and to the
//! device's thread.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_os::nospec;
use kvm_ioctls::{IoEventAddress, VmFd};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::cpu_grant::CpuGranter;
use super::device::VirtioDevice;
use super::irq_trigger::IrqTrigger;
use super::mailbox::DriverSetup;
use super::registers::{CONFIG_SPACE, RegisterEffect, Registers};
use super::worker::Worker;
use crate::devices::error::DeviceError;
use crate::devices::mmio_region::MmioRegion;

/// The registers of one device and the thread behind them.
#[derive(Debug)]
pub(crate) struct MmioTransport {
    region: MmioRegion,
    memory: GuestMemoryMmap,
    registers: Mutex<Registers>,
    config_space: Vec<u8>,
    irq: Arc<IrqTrigger>,
    worker: Worker,
}

impl MmioTransport {
    /// Puts `device` into slot `slot` of the guest `vm` and starts its thread.
    pub(crate) fn open(
        vm: &VmFd,
        memory: &GuestMemoryMmap,
        slot: u32,
        device: Box<dyn VirtioDevice>,
    ) -> Result<Self, DeviceError> {
        let region = MmioRegion::of_slot(slot);
        let irq = Arc::new(IrqTrigger::new(vm, region.irq)?);
        let notifications = notifications(vm, region, device.queue_count())?;
        Ok(Self::new(slot, memory, device, notifications, irq)?)
    }

    fn new(
        slot: u32,
        memory: &GuestMemoryMmap,
        device: Box<dyn VirtioDevice>,
        notifications: Vec<EventFd>,
        irq: Arc<IrqTrigger>,
    ) -> io::Result<Self> {
        let registers = Registers::new(device.device_id(), device.features(), device.queue_count());
        Ok(Self {
            region: MmioRegion::of_slot(slot),
            memory: memory.clone(),
            registers: Mutex::new(registers),
            config_space: device.config_space(),
            irq: Arc::clone(&irq),
            worker: Worker::spawn(slot, device, notifications, memory.clone(), irq)?,
        })
    }

    /// From now on the device's thread works only when `granter` grants it CPU time.
    pub(crate) fn require_cpu_grants(&self, granter: Arc<dyn CpuGranter>) {
        self.worker.require_cpu_grants(granter);
    }

    /// Requests that the device's thread end. Does not wait for that.
    pub(crate) fn end(&self) {
        self.worker.end();
    }

    pub(crate) fn region(&self) -> MmioRegion {
        self.region
    }

    /// A vCPU reads `offset` bytes into the region. Registers are 32 bits wide.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG_SPACE {
            self.read_config_space((offset - CONFIG_SPACE) as usize, data);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(&mut *data) {
            *word = self.read_register(offset).to_le_bytes();
        } else {
            data.fill(0xff);
        }
    }

    fn read_config_space(&self, start: usize, data: &mut [u8]) {
        for (at, byte) in (start..).zip(data) {
            *byte = nospec::get(&self.config_space, at).copied().unwrap_or(0);
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let mut registers = self.lock();
        let touched = self.worker.access().touched();
        if registers.completes_reset(touched) {
            // The thread may have raised the IRQ in its last piece of work.
            self.irq.reset();
        }
        registers.read(offset, self.irq.pending(), touched)
    }

    /// A vCPU writes `offset` bytes into the region. A write to the configuration space, or one that is not 32
    /// bits wide, has no effect.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        if offset >= CONFIG_SPACE {
            return;
        }
        let value = u32::from_le_bytes(bytes);
        let mut registers = self.lock();
        match registers.write(offset, value, &self.memory) {
            RegisterEffect::None => {}
            RegisterEffect::Acknowledge(reasons) => self.irq.acknowledge(reasons),
            // The thread gets these in the driver's sequence, so they are passed on under the lock. None of
            // them waits for the thread.
            RegisterEffect::Start(setup) => self.worker.set_up(setup),
            RegisterEffect::ReplaceQueue(index, queue) => self.worker.replace_queue(index, queue),
            RegisterEffect::Reset => {
                self.worker.set_up(DriverSetup::default());
                self.irq.reset();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A transport that is connected to no virtual machine.
    #[cfg(test)]
    pub(super) fn unconnected(
        device: Box<dyn VirtioDevice>,
        memory: &GuestMemoryMmap,
    ) -> io::Result<Self> {
        let irq = Arc::new(IrqTrigger::unconnected()?);
        let notifications = (0..device.queue_count())
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<Result<_, _>>()?;
        Self::new(0, memory, device, notifications, irq)
    }
}

/// For each queue the eventfd that KVM signals when the driver notifies that queue.
fn notifications(
    vm: &VmFd,
    region: MmioRegion,
    queues: usize,
) -> Result<Vec<EventFd>, DeviceError> {
    let register = IoEventAddress::Mmio(region.base + u64::from(VIRTIO_MMIO_QUEUE_NOTIFY));
    (0..queues as u32)
        .map(|queue| {
            let event = EventFd::new(EFD_NONBLOCK)?;
            vm.register_ioevent(&event, &register, queue)
                .map_err(|error| DeviceError::Host(error.into()))?;
            Ok(event)
        })
        .collect()
}

#[cfg(test)]
mod tests;
