//! The queues of a device at work, and how long it works on them at a stretch.

use std::sync::Arc;

use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use super::descriptor_chain;
use super::irq_trigger::Interrupt;
use super::mailbox::{Orders, Setup};
use super::request::Request;

/// Most requests at a stretch. A driver that adds to a queue as fast as the device takes from it
/// would otherwise keep the thread from its other queue, and from the end of the guest.
const STRETCH: u32 = 64;

/// The queues.
pub(super) struct Rings {
    /// What was agreed on with the driver; no queues after a reset.
    pub(super) setup: Setup,
    memory: GuestMemoryMmap,
    interrupt: Arc<Interrupt>,
    orders: Arc<Orders>,
    /// A bit for each queue that was left before it was empty.
    unfinished: u32,
}

impl Rings {
    /// None yet.
    pub(super) fn new(
        memory: GuestMemoryMmap,
        interrupt: Arc<Interrupt>,
        orders: Arc<Orders>,
    ) -> Self {
        Self {
            setup: Setup::default(),
            memory,
            interrupt,
            orders,
            unfinished: 0,
        }
    }

    /// Takes requests from queue `index` until there are none, or `handle` wants no more: it gives
    /// the number of bytes that it wrote for the driver, or `None` to leave the request in the
    /// queue. Stops also when an order waits, for whatever queue, and after a while; see [`Self::take_unfinished`].
    pub(super) fn each(
        &mut self,
        index: usize,
        mut handle: impl FnMut(&mut Request) -> Option<u32>,
    ) {
        let Some(queue) = self.setup.queues.get_mut(index) else {
            return;
        };
        if !queue.ready() {
            return;
        }
        let access = self.orders.access();
        let mut used = false;
        let mut left = STRETCH;
        while !self.orders.waiting_after_pause() {
            if left == 0 {
                self.unfinished |= 1 << index;
                break;
            }
            left -= 1;
            let Some(chain) = queue.pop_descriptor_chain(&self.memory) else {
                break;
            };
            let head = chain.head_index();
            let request = match descriptor_chain::keeps_to(queue, &self.memory, head) {
                true => Request::new(&self.memory, chain, &self.orders, index),
                false => None,
            };
            let taken = match request {
                Some(mut request) => handle(&mut request),
                // No request: it goes back as it is.
                None => Some(0),
            };
            let Some(written) = taken else {
                queue.go_to_previous_position();
                break;
            };
            // After a reset the memory of the queue is the driver's.
            match access.touch(index, || queue.add_used(&self.memory, head, written)) {
                // Fails for a ring outside of memory, which concerns its driver alone.
                Some(added) => used |= added.is_ok(),
                None => return,
            }
        }
        if used {
            access.touch(index, || {
                if queue.needs_notification(&self.memory).unwrap_or(true) {
                    self.interrupt.queue_used();
                }
            });
        }
    }

    /// Whether queue `index` was left only because the device had worked on it for long.
    pub(super) fn take_unfinished(&mut self, index: usize) -> bool {
        let bit = 1 << index;
        let was = self.unfinished & bit != 0;
        self.unfinished &= !bit;
        was
    }
}

#[cfg(test)]
pub(super) mod tests;
