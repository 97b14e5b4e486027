//! The registers of a virtio-mmio window: what the driver agrees with the device before they work, and
//! how it takes that back: all by a reset, one queue by QueueReady.
//!
//! The device lets go of memory a moment later than the driver writes these registers, if its thread
//! touches some just then (`access.rs`): until that is over, Status or QueueReady do not read 0.
//! A queue that was stopped can be described anew and started again, as under QEMU.
//!
//! Source: VIRTIO 1.2, 4.2.2 (registers), 2.4.1 (reset) and 3.1.1 (the order of initialisation).

use baton_os::nospec;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::mailbox::Setup;
use super::{QUEUE_SIZE, queue_access};

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// The version that is not "legacy".
const VERSION: u32 = 2;
/// "BATN".
const VENDOR: u32 = 0x4e54_4142;
/// A shared memory region that does not exist has this length.
const NO_REGION: u32 = u32::MAX;
/// Where the configuration space begins.
pub(super) const CONFIG: u64 = reg::VIRTIO_MMIO_CONFIG as u64;

/// What the window shall do besides.
#[derive(Debug)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// The driver is ready: work on this.
    Start(Setup),
    /// Forget the queues.
    Stop,
    /// Work on this queue in the place of the one with this index, or on none there if it is not ready.
    Change(usize, Queue),
    /// It has seen these interrupts.
    Acknowledge(u32),
}

/// One queue as the driver has described it.
#[derive(Clone, Copy, Debug, Default)]
struct Description {
    size: u32,
    ready: bool,
    /// It worked, and the driver has stopped it.
    stopped: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
}

/// The registers.
#[derive(Debug)]
pub(super) struct Registers {
    kind: u32,
    offered: u64,
    offered_half: u32,
    accepted: u64,
    accepted_half: u32,
    selected: u32,
    status: u32,
    /// The status of before a reset that is not complete yet; 0 otherwise.
    leaving: u32,
    queues: Vec<Description>,
}

impl Registers {
    /// Of a device of `kind` with `queues` queues that offers `features`.
    pub(super) fn new(kind: u32, features: u64, queues: usize) -> Self {
        Self {
            kind,
            offered: features | 1 << VIRTIO_F_VERSION_1,
            offered_half: 0,
            accepted: 0,
            accepted_half: 0,
            selected: 0,
            status: 0,
            leaving: 0,
            queues: vec![Description::default(); queues],
        }
    }

    /// Whether a reset is complete now that was not before. `touched` are the queues whose memory the
    /// device's thread touches, as in [`queue_access::Access::touched`].
    pub(super) fn completes_reset(&mut self, touched: u32) -> bool {
        let completes = self.leaving != 0 && touched == 0;
        if completes {
            self.leaving = 0;
        }
        completes
    }

    /// The register at `offset`; `pending` are the interrupts not acknowledged, `touched` as above.
    pub(super) fn read(&self, offset: u64, pending: u32, touched: u32) -> u32 {
        let queue = nospec::get(&self.queues, self.selected as usize);
        match offset as u32 {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.kind,
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, self.offered_half),
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |_| QUEUE_SIZE.into()),
            reg::VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| {
                let held =
                    queue.stopped && touched & queue_access::bit(self.selected as usize) != 0;
                (queue.ready || held).into()
            }),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => pending,
            reg::VIRTIO_MMIO_STATUS => self.status | self.leaving,
            reg::VIRTIO_MMIO_SHM_LEN_LOW | reg::VIRTIO_MMIO_SHM_LEN_HIGH => NO_REGION,
            // Also the configuration's generation: it does not change.
            _ => 0,
        }
    }

    /// A write to the register at `offset`. What the driver may not do (now) changes nothing.
    pub(super) fn write(&mut self, offset: u64, value: u32, memory: &GuestMemoryMmap) -> Action {
        match offset as u32 {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_half = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.accepted_half = value,
            reg::VIRTIO_MMIO_QUEUE_SEL => self.selected = value,
            reg::VIRTIO_MMIO_INTERRUPT_ACK => return Action::Acknowledge(value),
            reg::VIRTIO_MMIO_STATUS => return self.set_status(value, memory),
            reg::VIRTIO_MMIO_DRIVER_FEATURES if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 => {
                set_half(&mut self.accepted, self.accepted_half, value);
            }
            reg::VIRTIO_MMIO_QUEUE_READY => return self.set_ready(value & 1 == 1, memory),
            _ => self.describe(offset, value),
        }
        Action::None
    }

    /// The driver lets the device use the selected queue, or takes it back.
    fn set_ready(&mut self, ready: bool, memory: &GuestMemoryMmap) -> Action {
        let working = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
        let works = self.status & working == working;
        let index = self.selected as usize;
        let Some(queue) = nospec::get_mut(&mut self.queues, index) else {
            return Action::None;
        };
        if queue.ready == ready {
            return Action::None;
        }
        queue.ready = ready;
        if !works {
            return Action::None;
        }
        queue.stopped = !ready;
        match queue.build(memory) {
            Some(built) => return Action::Change(index, built),
            None => {
                queue.ready = false;
                self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
            }
        }
        Action::None
    }

    /// A register of the selected queue. Of one that the device may use nothing changes.
    fn describe(&mut self, offset: u64, value: u32) {
        let Some(queue) = nospec::get_mut(&mut self.queues, self.selected as usize) else {
            return;
        };
        if queue.ready {
            return;
        }
        match offset as u32 {
            reg::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut queue.driver, 0, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut queue.driver, 1, value),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut queue.device, 0, value),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut queue.device, 1, value),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32, memory: &GuestMemoryMmap) -> Action {
        if value == 0 {
            *self = Self {
                queues: vec![Description::default(); self.queues.len()],
                accepted: 0,
                status: 0,
                leaving: self.leaving | self.status,
                selected: 0,
                ..*self
            };
            return Action::Stop;
        }
        // A driver that does not wait for the end of a reset has its own words read back.
        self.leaving = 0;
        let new = value & !self.status;
        self.status |= value;
        let acceptable =
            self.accepted & !self.offered == 0 && self.accepted >> VIRTIO_F_VERSION_1 & 1 == 1;
        if new & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !acceptable {
            self.status &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if new & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            match self.start(memory) {
                Some(setup) => return Action::Start(setup),
                None => self.status |= VIRTIO_CONFIG_S_NEEDS_RESET,
            }
        }
        Action::None
    }

    /// What the driver has set up; `None` if that cannot work.
    fn start(&self, memory: &GuestMemoryMmap) -> Option<Setup> {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            return None;
        }
        let queues = self.queues.iter().map(|queue| queue.build(memory));
        Some(Setup {
            features: self.accepted,
            queues: queues.collect::<Option<_>>()?,
        })
    }
}

impl Description {
    /// The queue as described; `None` if it cannot work.
    fn build(&self, memory: &GuestMemoryMmap) -> Option<Queue> {
        let mut queue = Queue::new(QUEUE_SIZE).ok()?;
        if !self.ready {
            return Some(queue);
        }
        let size = u16::try_from(self.size).ok()?;
        queue.try_set_size(size).ok()?;
        let at = GuestAddress;
        queue
            .try_set_desc_table_address(at(self.descriptors))
            .ok()?;
        queue.try_set_avail_ring_address(at(self.driver)).ok()?;
        queue.try_set_used_ring_address(at(self.device)).ok()?;
        queue.set_ready(true);
        queue.is_valid(memory).then_some(queue)
    }
}

/// The low (0) or high (1) half of `value`; there are no others.
fn half(value: u64, which: u32) -> u32 {
    match which {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, which: u32, half: u32) {
    match which {
        0 => *value = *value & !0xffff_ffff | u64::from(half),
        1 => *value = *value & 0xffff_ffff | u64::from(half) << 32,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
