//! Work that may never come to an end, and that a request to end the program need not wait for: opening a
//! pipe that nobody writes to, reading a file on a server that does not answer, clearing a terabyte of memory.
//!
//! Such work is done on a thread of its own. The calling thread waits for the work and for the request. After
//! a request it leaves the working thread behind, if it must: that thread's system call may not be
//! interruptible, and ends with the process.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::event::{Event, wait_readable};
use crate::signals::StopSignals;

/// How long the work has to end by itself after a request, so that what it made is removed again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Work that did not come to its end.
#[derive(Debug, Error)]
pub enum Abandoned {
    /// A signal requested the end.
    #[error("ended by a signal before the guests ran")]
    Stopped,
    /// The thread or its event could not be set up.
    #[error("cannot set up a thread: {0}")]
    Host(#[from] io::Error),
}

/// Sets an event when dropped: at the end of the work, and if that panics.
struct SetOnDrop(Arc<Event>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Does `work` on a thread of its own, until its end or that of the process. Without `signals`, does it on
/// this thread.
///
/// # Errors
/// If a signal requests the end, before the work or during it, or no thread can be started.
pub fn unless_stopped<T: Send + 'static>(
    signals: Option<&StopSignals>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Abandoned> {
    let Some(signals) = signals else {
        return Ok(work());
    };
    if signals.take() {
        return Err(Abandoned::Stopped);
    }
    let done = Arc::new(Event::new()?);
    let (send, receive) = mpsc::channel();
    let set_on_drop = SetOnDrop(Arc::clone(&done));
    let thread = thread::Builder::new()
        .name("set-up".to_owned())
        .spawn(move || {
            let _set_on_drop = set_on_drop;
            // If nobody waits for the result any more, it is dropped here.
            let _ = send.send(work());
        })?;
    loop {
        wait_readable(&[done.as_fd(), signals.as_fd()], None)?;
        match receive.try_recv() {
            Ok(result) => {
                let _ = thread.join();
                return Ok(result);
            }
            Err(TryRecvError::Disconnected) => {
                // The thread's panic becomes this thread's.
                return match thread.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => Err(Abandoned::Host(io::Error::other("it gave no result"))),
                };
            }
            Err(TryRecvError::Empty) if signals.take() => {
                wait_readable(&[done.as_fd()], Some(PATIENCE))?;
                return Err(Abandoned::Stopped);
            }
            Err(TryRecvError::Empty) => {}
        }
    }
}
