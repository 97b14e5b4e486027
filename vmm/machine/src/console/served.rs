//! The thread of a console that programs attach to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use baton_os::sys;
use rustix::event::{PollFd, Timespec, poll};

use super::account::Account;
use super::endpoint::{Endpoint, wait_for};
use super::input::{Connected, Input, TakesInput};
use super::port::ConsolePort;
use super::scrollback::Scrollback;

/// How long the programs that are attached at the end may take nothing before the rest is dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A console that programs attach to, and its thread. The thread ends when this value is dropped, after the
/// programs have been given the rest of the output.
#[derive(Debug)]
pub(super) struct ServedConsole {
    shared: Arc<Shared>,
    port: ConsolePort,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    scrollback: Arc<Scrollback>,
    input: Input,
    is_ending: AtomicBool,
    account: Arc<Account>,
}

impl ServedConsole {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the host refuses a thread or an event.
    pub(super) fn spawn(mut endpoint: impl Endpoint + 'static) -> io::Result<Self> {
        let scrollback = Arc::new(Scrollback::new()?);
        let account = Arc::new(Account::default());
        let shared = Arc::new(Shared {
            scrollback: Arc::clone(&scrollback),
            input: Input::default(),
            is_ending: AtomicBool::new(false),
            account: Arc::clone(&account),
        });
        let thread = thread::Builder::new().name("console".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&mut endpoint)
        })?;
        Ok(Self {
            shared,
            port: ConsolePort::kept(scrollback, account),
            thread: Some(thread),
        })
    }

    /// Where the guest prints to.
    pub(super) fn port(&self) -> ConsolePort {
        self.port.clone()
    }

    /// Gives the input to `guest`.
    ///
    /// # Errors
    /// If this process has no file left.
    pub(super) fn connect(&self, guest: &Arc<dyn TakesInput>) -> io::Result<()> {
        self.shared.input.connect(guest)?;
        self.shared.scrollback.wake();
        Ok(())
    }

    /// Lets the thread end, without waiting for it.
    pub(super) fn end(&self) {
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.scrollback.wake();
    }
}

impl Drop for ServedConsole {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The thread.
    fn serve(&self, endpoint: &mut impl Endpoint) {
        let mut charged = sys::thread_cpu_ns();
        let mut progress = Progress::default();
        loop {
            // In this order: what follows the flag's change is found by the next round.
            let is_ending = self.is_ending.load(Ordering::Acquire);
            let patience = is_ending.then(|| progress.left());
            let connected = self.input.connected();
            if self.wait(endpoint, connected.as_deref(), patience).is_err() {
                // The guest goes on with a console that nobody can read any more.
                return;
            }
            self.scrollback.take_event();
            if let Some(connected) = &connected {
                let _ = connected.attention.read();
            }
            let delivered = endpoint.serve(&self.scrollback, &self.input);
            progress.add(delivered, is_ending);
            let now = sys::thread_cpu_ns();
            self.account.charge(now - charged);
            charged = now;
            if is_ending && (!endpoint.is_behind(&self.scrollback) || progress.left().is_zero()) {
                return;
            }
        }
    }

    /// Waits until there is something to do, or until `patience` is over.
    fn wait(
        &self,
        endpoint: &impl Endpoint,
        connected: Option<&Connected>,
        patience: Option<Duration>,
    ) -> io::Result<()> {
        let has_room = connected.is_some_and(|connected| connected.room() > 0);
        let mut files = endpoint.files(&self.scrollback, has_room);
        files.push(wait_for(self.scrollback.event().as_fd(), true, false));
        files.extend(connected.map(|connected| attention(connected)));
        let interval = endpoint.check_interval();
        let timeout = interval.into_iter().chain(patience).min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn attention(connected: &Connected) -> PollFd<'_> {
    // SAFETY: the event lives as long as `connected`.
    let event = unsafe { BorrowedFd::borrow_raw(connected.attention.as_raw_fd()) };
    wait_for(event, true, false)
}

/// Since when nothing could be delivered at the end.
#[derive(Default)]
struct Progress(Option<Instant>);

impl Progress {
    fn add(&mut self, delivered: usize, is_ending: bool) {
        if is_ending && (delivered > 0 || self.0.is_none()) {
            self.0 = Some(Instant::now());
        }
    }

    /// How long to wait for more.
    fn left(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |since| {
            PATIENCE.saturating_sub(since.elapsed())
        })
    }
}
