//! A device's thread: it sleeps until the driver notifies a queue, or something comes from outside.
//!
//! A reset does not wait for a request that is under way, for that would make a vCPU's executor wait
//! for a disk: such a request may still read or write the guest's memory after the reset, but no
//! longer its queue.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::interrupt::Interrupt;
use super::{Device, Rings};

/// What the vCPUs' side asks for.
#[derive(Debug)]
enum Command {
    Start(Vec<Queue>),
    Stop,
}

/// A device's thread; ends when dropped.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` once it shall end.
    commands: Option<Sender<Command>>,
    attention: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread of `device`, whose queues are notified by `kicks`.
    pub(super) fn spawn(
        slot: u32,
        device: Box<dyn Device>,
        kicks: Vec<EventFd>,
        memory: GuestMemoryMmap,
        interrupt: Arc<Interrupt>,
    ) -> io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let attention = EventFd::new(EFD_NONBLOCK)?;
        let served = Served {
            source: device.source().transpose()?,
            device,
            kicks,
            commands: received,
            attention: attention.try_clone()?,
            rings: Rings {
                queues: Vec::new(),
                memory,
                interrupt,
            },
            over: Arc::default(),
        };
        let over = Arc::clone(&served.over);
        let mut manager =
            EventManager::<Box<dyn MutEventSubscriber + Send>>::new().map_err(io::Error::other)?;
        manager.add_subscriber(Box::new(served));
        let thread = thread::Builder::new()
            .name(format!("virtio{slot}"))
            .spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Acquire) && manager.run().is_ok() {}
            })?;
        Ok(Self {
            commands: Some(commands),
            attention,
            thread: Some(thread),
        })
    }

    /// Works on `queues` from now on.
    pub(super) fn start(&self, queues: Vec<Queue>) {
        self.send(Command::Start(queues));
    }

    /// Leaves the queues alone from now on.
    pub(super) fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Fails when the thread is gone; then nobody serves this device any more.
            let _ = commands.send(command);
            let _ = self.attention.write(1);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.attention.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Served {
    device: Box<dyn Device>,
    kicks: Vec<EventFd>,
    source: Option<i32>,
    commands: Receiver<Command>,
    attention: EventFd,
    rings: Rings,
    over: Arc<std::sync::atomic::AtomicBool>,
}

impl Served {
    fn obey(&mut self) {
        let _ = self.attention.read();
        loop {
            match self.commands.try_recv() {
                Ok(Command::Start(queues)) => {
                    self.rings.queues = queues;
                    // The driver may have notified before this was heard.
                    for index in 0..self.kicks.len() {
                        self.device.serve(index, &mut self.rings);
                    }
                    self.device.arrived(&mut self.rings);
                }
                Ok(Command::Stop) => self.rings.queues.clear(),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Disconnected) => {
                    return self.over.store(true, std::sync::atomic::Ordering::Release);
                }
            }
        }
    }
}

impl MutEventSubscriber for Served {
    fn process(&mut self, events: Events, _: &mut EventOps) {
        let file = events.fd();
        if file == self.attention.as_raw_fd() {
            return self.obey();
        }
        if Some(file) == self.source {
            return self.device.arrived(&mut self.rings);
        }
        let kicked = self.kicks.iter().position(|kick| kick.as_raw_fd() == file);
        if let Some(index) = kicked {
            let _ = self.kicks[index].read();
            self.device.serve(index, &mut self.rings);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        // Fails only when the host is out of memory; the device is deaf then.
        let _ = ops.add(Events::new(&self.attention, EventSet::IN));
        for kick in &self.kicks {
            let _ = ops.add(Events::new(kick, EventSet::IN));
        }
        if let Some(source) = self.source {
            // Once for each arrival: what has no room stays where it is until the driver makes some.
            let _ = ops.add(Events::new_raw(
                source,
                EventSet::IN | EventSet::EDGE_TRIGGERED,
            ));
        }
    }
}
