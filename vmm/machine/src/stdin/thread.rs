//! The thread, on rust-vmm's event manager.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use baton_os::tty;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::serial_input::SerialInput;
use crate::guest::Guest;

/// The thread that moves stdin to the serial port of one guest. The thread ends when this value is dropped.
#[derive(Debug)]
pub struct StdinThread {
    stop: Arc<StopRequest>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct StopRequest {
    is_requested: AtomicBool,
    event: EventFd,
}

impl StdinThread {
    /// Starts the thread for `guest`, which gets this program's stdin.
    ///
    /// # Errors
    /// If the host refuses a thread or an event.
    pub fn spawn(guest: Arc<Guest>) -> io::Result<Self> {
        let stop = Arc::new(StopRequest {
            is_requested: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK)?,
        });
        let mut manager =
            EventManager::<Box<dyn MutEventSubscriber + Send>>::new().map_err(io::Error::other)?;
        manager.add_subscriber(Box::new(StopEvent(Arc::clone(&stop))));
        manager.add_subscriber(Box::new(SerialInput::new(guest)?));
        let until = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || {
                // A guest that reads keys must not stop this process, and with it all guests.
                let _ = tty::outlive_the_background();
                while !until.is_requested.load(Ordering::Acquire) {
                    if manager.run().is_err() {
                        // The guest goes on without input.
                        return;
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for StdinThread {
    fn drop(&mut self) {
        self.stop.is_requested.store(true, Ordering::Release);
        let _ = self.stop.event.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Wakes the thread, so that it notices the request to end.
struct StopEvent(Arc<StopRequest>);

impl MutEventSubscriber for StopEvent {
    fn process(&mut self, _: Events, _: &mut EventOps) {}

    fn init(&mut self, ops: &mut EventOps) {
        let _ = ops.add(Events::new(&self.0.event, EventSet::IN));
    }
}
