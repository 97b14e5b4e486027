//! The queues that a device processes, and for how long it processes one of them at a time.

use std::sync::Arc;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use super::descriptor_chain;
use super::irq_trigger::IrqTrigger;
use super::mailbox::{DriverSetup, Mailbox};
use super::queue_set::QueueSet;
use super::request::Request;

/// Most requests of one queue at a time. Otherwise a driver that fills a queue as fast as the device
/// empties it would keep the thread from its other queues, and from ending.
const BATCH: u32 = 64;

/// The queues of one device, for use on its thread.
pub(crate) struct Queues {
    /// What is negotiated with the driver; no queues after a reset.
    pub(super) setup: DriverSetup,
    memory: GuestMemoryMmap,
    irq: Arc<IrqTrigger>,
    mailbox: Arc<Mailbox>,
    /// The queues that may have more requests, because a batch of them has ended.
    unfinished: QueueSet,
}

impl Queues {
    /// No queues yet: the driver has not started the device.
    pub(super) fn new(
        memory: GuestMemoryMmap,
        irq: Arc<IrqTrigger>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        Self {
            setup: DriverSetup::default(),
            memory,
            irq,
            mailbox,
            unfinished: QueueSet::default(),
        }
    }

    /// Takes requests from queue `index` and passes each to `handle`, until the queue is empty or `handle`
    /// declines a request. `handle` returns the number of bytes that it has written for the driver, or
    /// `None` if the request is to stay in the queue.
    ///
    /// Ends earlier if the mailbox has a message, for whichever queue, and after a batch of requests:
    /// see [`Self::take_unfinished`].
    pub(super) fn for_each_request(
        &mut self,
        index: usize,
        mut handle: impl FnMut(&mut Request) -> Option<u32>,
    ) {
        if self.process_batch(index, &mut handle) {
            self.notify_driver(index);
        }
    }

    /// Returns whether a request was used, so that the driver must be notified.
    fn process_batch(
        &mut self,
        index: usize,
        handle: &mut impl FnMut(&mut Request) -> Option<u32>,
    ) -> bool {
        let queue = self.setup.queues.get_mut(index);
        let Some(queue) = queue.filter(|queue| queue.ready()) else {
            return false;
        };
        let mut used = false;
        let mut left_in_batch = BATCH;
        while self.mailbox.may_take_request() {
            if left_in_batch == 0 {
                self.unfinished.insert(index);
                break;
            }
            left_in_batch -= 1;
            let Some(chain) = queue.pop_descriptor_chain(&self.memory) else {
                break;
            };
            let head = chain.head_index();
            let handled = match request(queue, &self.memory, chain, &self.mailbox, index) {
                Some(mut request) => handle(&mut request),
                // A chain that is no request goes back to the driver with nothing written.
                None => Some(0),
            };
            let Some(written) = handled else {
                queue.go_to_previous_position();
                break;
            };
            let add = || queue.add_used(&self.memory, head, written);
            match self.mailbox.access().touch(index, add) {
                // Fails if the used ring is outside of memory, which harms only this driver.
                Some(added) => used |= added.is_ok(),
                // After a reset the memory of the queue belongs to the driver.
                None => return false,
            }
        }
        used
    }

    /// Raises the IRQ, unless the driver has suppressed that for queue `index`.
    fn notify_driver(&mut self, index: usize) {
        let Some(queue) = self.setup.queues.get_mut(index) else {
            return;
        };
        self.mailbox.access().touch(index, || {
            if queue.needs_notification(&self.memory).unwrap_or(true) {
                self.irq.queue_used();
            }
        });
    }

    /// Whether queue `index` may have more requests, because a batch of them has ended. Returns true once
    /// for each batch.
    pub(super) fn take_unfinished(&mut self, index: usize) -> bool {
        self.unfinished.remove(index)
    }
}

/// The request in `chain`, if the chain is valid and all of it is in the guest's memory.
fn request<'a>(
    queue: &Queue,
    memory: &'a GuestMemoryMmap,
    chain: DescriptorChain<&GuestMemoryMmap>,
    mailbox: &'a Mailbox,
    index: usize,
) -> Option<Request<'a>> {
    match descriptor_chain::is_valid(queue, memory, chain.head_index()) {
        true => Request::new(memory, chain, mailbox, index),
        false => None,
    }
}

#[cfg(test)]
mod tests;
