//! A device's thread. It sleeps until the driver notifies a queue, the host has something for the device, or
//! there is a message in its mailbox.
//!
//! A reset does not wait for the request that the thread works on: a vCPU's executor would wait for a disk
//! then. The thread may finish that request, but it touches neither the request's memory nor its queue any
//! more (`queue_access.rs`). A long request ends at its next piece.
//!
//! Nor does a driver that never stops keep the thread from anything else: after a batch of requests the
//! thread yields the CPU and handles what else there is, messages first.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::cpu_grant::CpuGranter;
use super::device::VirtioDevice;
use super::irq_trigger::IrqTrigger;
use super::mailbox::{DriverSetup, Mailbox};
use super::queue_access::QueueAccess;
use super::queues::Queues;

/// A handle to a device's thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Worker {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread of `device`, whose queues are notified by `notifications`.
    pub(super) fn spawn(
        slot: u32,
        device: Box<dyn VirtioDevice>,
        notifications: Vec<EventFd>,
        memory: GuestMemoryMmap,
        irq: Arc<IrqTrigger>,
    ) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::new()?);
        let ended = Arc::new(AtomicBool::new(false));
        let queues = Queues::new(memory, irq, Arc::clone(&mailbox));
        let handler = EventHandler {
            host_event: device.host_event(),
            rate_limit_timers: (0..notifications.len())
                .map(|index| device.rate_limit_timer(index))
                .collect(),
            device,
            notifications,
            queues,
            mailbox: Arc::clone(&mailbox),
            ended: Arc::clone(&ended),
        };
        let mut manager =
            EventManager::<Box<dyn MutEventSubscriber + Send>>::new().map_err(io::Error::other)?;
        manager.add_subscriber(Box::new(handler));
        let thread = thread::Builder::new()
            .name(format!("virtio{slot}"))
            .spawn(move || while !ended.load(Ordering::Acquire) && manager.run().is_ok() {})?;
        Ok(Self {
            mailbox,
            thread: Some(thread),
        })
    }

    /// From now on the thread works only when `granter` grants it CPU time.
    pub(super) fn require_cpu_grants(&self, granter: Arc<dyn CpuGranter>) {
        self.mailbox.grant().require(granter);
    }

    /// See [`Mailbox::set_up`].
    pub(super) fn set_up(&self, setup: DriverSetup) {
        self.mailbox.set_up(setup);
    }

    /// See [`Mailbox::replace_queue`].
    pub(super) fn replace_queue(&self, index: usize, queue: Queue) {
        self.mailbox.replace_queue(index, queue);
    }

    /// Which queues the thread may touch.
    pub(super) fn access(&self) -> &QueueAccess {
        self.mailbox.access()
    }

    /// Requests that the thread end. Does not wait for that.
    pub(super) fn end(&self) {
        self.mailbox.end();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take()
            // This may run on the device's own thread, if that held the last reference to the guest on its way
            // to or from the policy. The thread then ends by itself, and cannot be joined.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The thread's own side: handles the events of one device.
struct EventHandler {
    device: Box<dyn VirtioDevice>,
    /// By queue: signalled by KVM when the driver notifies the queue.
    notifications: Vec<EventFd>,
    /// [`VirtioDevice::host_event`].
    host_event: Option<RawFd>,
    /// By queue: [`VirtioDevice::rate_limit_timer`].
    rate_limit_timers: Vec<Option<RawFd>>,
    mailbox: Arc<Mailbox>,
    queues: Queues,
    /// The thread is to end after this event.
    ended: Arc<AtomicBool>,
}

impl EventHandler {
    fn handle_message(&mut self) {
        let Some(message) = self.mailbox.take() else {
            return;
        };
        if message.end {
            return self.ended.store(true, Ordering::Release);
        }
        if let Some(setup) = message.setup {
            self.queues.setup = setup;
            self.device.on_restart(&self.queues);
        }
        for (index, queue) in message.replaced {
            if let Some(replaced) = self.queues.setup.queues.get_mut(index) {
                *replaced = queue;
            }
        }
        // The driver may have notified a queue before this message was taken, and a queue in progress was
        // abandoned for the message.
        for index in 0..self.notifications.len() {
            self.process_queue(index);
        }
    }

    fn process_queue(&mut self, index: usize) {
        self.device.process_queue(index, &mut self.queues);
        self.reschedule_unfinished();
    }

    /// `file` has become readable.
    fn on_readable(&mut self, file: RawFd) {
        if file == self.mailbox.event().as_raw_fd() {
            return self.handle_message();
        }
        if Some(file) == self.host_event {
            self.device.on_host_event(&mut self.queues);
            return self.reschedule_unfinished();
        }
        let mut timers = self.rate_limit_timers.iter();
        if let Some(index) = timers.position(|timer| *timer == Some(file)) {
            return self.process_queue(index);
        }
        let mut notifications = self.notifications.iter();
        if let Some(index) = notifications.position(|event| event.as_raw_fd() == file) {
            let _ = self.notifications[index].read();
            self.process_queue(index);
        }
    }

    /// Notifies this thread of the queues that are unfinished, so that it returns to them after everything else
    /// that is readable, and after other programs on this host CPU.
    fn reschedule_unfinished(&mut self) {
        let mut any = false;
        for (index, notification) in self.notifications.iter().enumerate() {
            if self.queues.take_unfinished(index) {
                // The write fails only if the counter is at its maximum, and then the queue is notified.
                let _ = notification.write(1);
                any = true;
            }
        }
        if any {
            thread::yield_now();
        }
    }
}

impl MutEventSubscriber for EventHandler {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let mailbox = Arc::clone(&self.mailbox);
        let file = events.fd();
        if mailbox.grant().acquire() {
            self.on_readable(file);
        } else if file == mailbox.event().as_raw_fd() {
            // Without a further grant the thread only ends.
            self.handle_message();
        } else {
            // The file stays readable, so it would be reported without end.
            let _ = ops.remove(Events::new_raw(file, EventSet::empty()));
        }
        mailbox.grant().release();
    }

    fn init(&mut self, ops: &mut EventOps) {
        // `add` fails only if the host is out of memory; the device does not react to that file then.
        let _ = ops.add(Events::new(self.mailbox.event(), EventSet::IN));
        for notification in &self.notifications {
            let _ = ops.add(Events::new(notification, EventSet::IN));
        }
        // These stay readable: timers are not read, and what a queue has no room for is not taken from the
        // host. So each event is reported once.
        for file in self
            .rate_limit_timers
            .iter()
            .flatten()
            .chain(&self.host_event)
        {
            let _ = ops.add(Events::new_raw(
                *file,
                EventSet::IN | EventSet::EDGE_TRIGGERED,
            ));
        }
    }
}

#[cfg(test)]
mod tests;
