//! Work that may never come to an end, and that a request to end need not wait for: a pipe that nobody
//! writes, a file on a server that does not answer, a terabyte of memory.
//!
//! Such work is done on a thread of its own. Who waits for it also waits for the request, and leaves the
//! thread behind if it must: its system call may not be interruptible, and ends with the process.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::signals::StopSignals;

/// How long a piece of work has to end by itself after a request, so that what it made is removed again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Work that did not come to its end.
#[derive(Debug, Error)]
pub enum Abandoned {
    /// A signal asked for the end.
    #[error("ended by a signal before the guests ran")]
    Stopped,
    /// The host has no thread or event for it.
    #[error("cannot set up a thread: {0}")]
    Host(#[from] io::Error),
}

/// Makes a file readable when dropped: at the end of the work, and if that panics.
struct AtTheEnd(Arc<EventFd>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        // Only a counter at its maximum refuses a write, and one write cannot take it there.
        let _ = self.0.write(1);
    }
}

/// Does `work` on a thread of its own, until its end or that of the process. Without `signals` on this
/// thread.
///
/// # Errors
/// If a signal asks for the end, also before the work, or the host gives no thread.
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
    let done = Arc::new(EventFd::new(EFD_NONBLOCK)?);
    let (send, receive) = mpsc::channel();
    let at_the_end = AtTheEnd(Arc::clone(&done));
    let thread = thread::Builder::new()
        .name("set-up".to_owned())
        .spawn(move || {
            let _at_the_end = at_the_end;
            // Nobody may want it any more; then it is dropped here.
            let _ = send.send(work());
        })?;
    loop {
        wait_for([done.as_raw_fd(), signals.as_raw_fd()], None)?;
        match receive.try_recv() {
            Ok(result) => {
                let _ = thread.join();
                return Ok(result);
            }
            Err(TryRecvError::Disconnected) => {
                // Its panic is this thread's.
                return match thread.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => Err(Abandoned::Host(io::Error::other("it gave no result"))),
                };
            }
            Err(TryRecvError::Empty) if signals.take() => {
                wait_for([done.as_raw_fd(), -1], Some(PATIENCE))?;
                return Err(Abandoned::Stopped);
            }
            Err(TryRecvError::Empty) => {}
        }
    }
}

/// Waits until one of the files can be read, or for so long.
fn wait_for(files: [RawFd; 2], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map_or(-1, |t| t.as_millis() as libc::c_int);
    // poll ignores negative descriptors.
    let mut files = files.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: two descriptors.
    let ready = unsafe { libc::poll(files.as_mut_ptr(), files.len() as libc::nfds_t, timeout) };
    match ready {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}
