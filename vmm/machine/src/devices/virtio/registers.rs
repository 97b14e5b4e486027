//! The registers of a virtio-mmio device: what the driver negotiates with the device before they work
//! together, and how the driver takes that back, by a reset or, for one queue, by QueueReady.
//!
//! If the device's thread touches memory when the driver writes these registers, the thread gives that memory
//! back a moment later (`queue_access.rs`). Until then Status, or QueueReady, does not read 0. A
//! queue that was stopped can be described and started again, as in QEMU.
//!
//! Source: VIRTIO 1.2, 4.2.2 (registers), 2.4.1 (reset) and 3.1.1 (the sequence of initialisation).

use baton_os::nospec;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::features::{Features, Half};
use super::mailbox::DriverSetup;
use super::queue_set::QueueSet;

/// Most entries of a queue.
const MAX_QUEUE_SIZE: u16 = 256;
/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// The version that is not "legacy".
const VERSION: u32 = 2;
/// "BATN".
const VENDOR: u32 = 0x4e54_4142;
/// The length of a shared memory region that does not exist.
const NO_REGION: u32 = u32::MAX;
/// Offset of the configuration space.
pub(super) const CONFIG_SPACE: u64 = reg::VIRTIO_MMIO_CONFIG as u64;

/// What the transport must do because of a write to a register.
#[derive(Debug)]
pub(super) enum RegisterEffect {
    /// Nothing.
    None,
    /// The driver has started the device with this setup.
    Start(DriverSetup),
    /// The driver has reset the device.
    Reset,
    /// The driver has replaced the queue with this index, or stopped it if the new queue is not ready.
    ReplaceQueue(usize, Queue),
    /// The driver acknowledges these reasons for the IRQ.
    Acknowledge(u32),
}

/// One queue as the driver has described it.
#[derive(Clone, Copy, Debug, Default)]
struct QueueDescription {
    size: u32,
    ready: bool,
    /// The driver has stopped the queue while the device worked.
    stopped: bool,
    descriptor_table: u64,
    available_ring: u64,
    used_ring: u64,
}

/// The registers.
#[derive(Debug)]
pub(super) struct Registers {
    device_id: u32,
    offered: Features,
    offered_half: u32,
    accepted: Features,
    accepted_half: u32,
    /// QueueSel, which the driver chooses freely: see [`Self::selected_queue`].
    queue_sel: u32,
    status: u32,
    /// The status before a reset that is not complete yet; 0 otherwise.
    status_before_reset: u32,
    queues: Vec<QueueDescription>,
}

impl Registers {
    /// The registers of a device of the kind `device_id` with `queues` queues, which offers `features`.
    pub(super) fn new(device_id: u32, features: Features, queues: usize) -> Self {
        Self {
            device_id,
            offered: features.with(VIRTIO_F_VERSION_1),
            offered_half: 0,
            accepted: Features::default(),
            accepted_half: 0,
            queue_sel: 0,
            status: 0,
            status_before_reset: 0,
            queues: vec![QueueDescription::default(); queues],
        }
    }

    /// Whether a reset is complete now and was not before. `touched` are the queues whose memory the device's
    /// thread touches.
    pub(super) fn completes_reset(&mut self, touched: QueueSet) -> bool {
        let completes = self.status_before_reset != 0 && touched.is_empty();
        if completes {
            self.status_before_reset = 0;
        }
        completes
    }

    /// The value of the register at `offset`. `pending` are the reasons for the IRQ that the driver has not
    /// acknowledged; `touched` is as in [`Self::completes_reset`].
    pub(super) fn read(&self, offset: u64, pending: u32, touched: QueueSet) -> u32 {
        match offset as u32 {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.device_id,
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => {
                Half::selected_by(self.offered_half).map_or(0, |half| self.offered.half(half))
            }
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                self.selected_queue().map_or(0, |_| MAX_QUEUE_SIZE.into())
            }
            reg::VIRTIO_MMIO_QUEUE_READY => self.selected_queue().map_or(0, |queue| {
                let still_touched = queue.stopped && touched.contains(self.queue_sel as usize);
                (queue.ready || still_touched).into()
            }),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => pending,
            reg::VIRTIO_MMIO_STATUS => self.status | self.status_before_reset,
            reg::VIRTIO_MMIO_SHM_LEN_LOW | reg::VIRTIO_MMIO_SHM_LEN_HIGH => NO_REGION,
            // Also ConfigGeneration: the configuration space does not change.
            _ => 0,
        }
    }

    /// The driver writes the register at `offset`. What the driver may not do, or not now, changes nothing.
    pub(super) fn write(
        &mut self,
        offset: u64,
        value: u32,
        memory: &GuestMemoryMmap,
    ) -> RegisterEffect {
        match offset as u32 {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_half = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.accepted_half = value,
            reg::VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            reg::VIRTIO_MMIO_INTERRUPT_ACK => return RegisterEffect::Acknowledge(value),
            reg::VIRTIO_MMIO_STATUS => return self.set_status(value, memory),
            reg::VIRTIO_MMIO_DRIVER_FEATURES => self.accept(value),
            reg::VIRTIO_MMIO_QUEUE_READY => return self.set_ready(value & 1 == 1, memory),
            _ => self.describe_queue(offset, value),
        }
        RegisterEffect::None
    }

    fn selected_queue(&self) -> Option<&QueueDescription> {
        nospec::get(&self.queues, self.queue_sel as usize)
    }

    fn selected_queue_mut(&mut self) -> Option<&mut QueueDescription> {
        nospec::get_mut(&mut self.queues, self.queue_sel as usize)
    }

    /// The driver accepts features, in the half that it has selected, until it confirms them by FEATURES_OK.
    fn accept(&mut self, bits: u32) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0
            && let Some(half) = Half::selected_by(self.accepted_half)
        {
            self.accepted.replace_half(half, bits);
        }
    }

    /// The driver lets the device use the selected queue, or takes that queue back.
    fn set_ready(&mut self, ready: bool, memory: &GuestMemoryMmap) -> RegisterEffect {
        let working = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
        let works = self.status & working == working;
        let index = self.queue_sel as usize;
        let Some(queue) = self.selected_queue_mut() else {
            return RegisterEffect::None;
        };
        if queue.ready == ready {
            return RegisterEffect::None;
        }
        queue.ready = ready;
        if !works {
            return RegisterEffect::None;
        }
        queue.stopped = !ready;
        match queue.build(memory) {
            Some(built) => RegisterEffect::ReplaceQueue(index, built),
            None => {
                queue.ready = false;
                self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
                RegisterEffect::None
            }
        }
    }

    /// The driver describes the selected queue. While the device may use that queue, nothing changes.
    fn describe_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.selected_queue_mut().filter(|queue| !queue.ready) else {
            return;
        };
        match offset as u32 {
            reg::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => {
                Half::Low.replace(&mut queue.descriptor_table, value)
            }
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => {
                Half::High.replace(&mut queue.descriptor_table, value);
            }
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => Half::Low.replace(&mut queue.available_ring, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => {
                Half::High.replace(&mut queue.available_ring, value);
            }
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => Half::Low.replace(&mut queue.used_ring, value),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => Half::High.replace(&mut queue.used_ring, value),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, memory: &GuestMemoryMmap) -> RegisterEffect {
        if value == 0 {
            self.reset();
            return RegisterEffect::Reset;
        }
        // A driver that does not wait for the end of a reset reads back what it has written.
        self.status_before_reset = 0;
        let added = value & !self.status;
        self.status |= value;
        let acceptable =
            self.accepted.is_subset_of(self.offered) && self.accepted.contains(VIRTIO_F_VERSION_1);
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !acceptable {
            self.status &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            match self.setup(memory) {
                Some(setup) => return RegisterEffect::Start(setup),
                None => self.status |= VIRTIO_CONFIG_S_NEEDS_RESET,
            }
        }
        RegisterEffect::None
    }

    fn reset(&mut self) {
        self.queues.fill(QueueDescription::default());
        self.accepted = Features::default();
        self.status_before_reset |= self.status;
        self.status = 0;
        self.queue_sel = 0;
    }

    /// What the driver has set up; `None` if the device cannot work with that.
    fn setup(&self, memory: &GuestMemoryMmap) -> Option<DriverSetup> {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            return None;
        }
        let queues = self.queues.iter().map(|queue| queue.build(memory));
        Some(DriverSetup {
            features: self.accepted,
            queues: queues.collect::<Option<_>>()?,
        })
    }
}

impl QueueDescription {
    /// The queue as the driver has described it; `None` if such a queue cannot work.
    fn build(&self, memory: &GuestMemoryMmap) -> Option<Queue> {
        let mut queue = Queue::new(MAX_QUEUE_SIZE).ok()?;
        if !self.ready {
            return Some(queue);
        }
        let size = u16::try_from(self.size).ok()?;
        queue.try_set_size(size).ok()?;
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptor_table))
            .ok()?;
        queue
            .try_set_avail_ring_address(GuestAddress(self.available_ring))
            .ok()?;
        queue
            .try_set_used_ring_address(GuestAddress(self.used_ring))
            .ok()?;
        queue.set_ready(true);
        queue.is_valid(memory).then_some(queue)
    }
}

#[cfg(test)]
mod tests;
