//! Input of a console that others can attach to: from their files to the guest, no faster than the guest reads.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// What takes the input of a console: the serial port of a guest.
pub trait TakesInput: Send + Sync {
    /// A copy of the file that becomes readable when there may be room again.
    ///
    /// # Errors
    /// If this process has no file left.
    fn attention(&self) -> io::Result<EventFd>;

    /// The number of bytes for which there is room. None as long as the guest's driver accepts no input.
    fn room(&self) -> usize;

    /// Takes `bytes`, which are not more than there was room for.
    fn take(&self, bytes: &[u8]);
}

/// A guest whose console has input.
#[derive(Debug)]
pub(super) struct Connected {
    /// Not a reason to keep a guest that has ended.
    guest: Weak<dyn TakesInput>,
    pub(super) attention: EventFd,
}

impl Connected {
    pub(super) fn room(&self) -> usize {
        self.guest.upgrade().map_or(0, |guest| guest.room())
    }
}

impl std::fmt::Debug for dyn TakesInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TakesInput")
    }
}

/// What has become of a file from which input was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// There may be more.
    Open,
    /// It has nothing now.
    Empty,
    /// It is at its end, or cannot be read.
    Ended,
}

/// The guest to which the input of a console goes now. Another guest may take its place.
#[derive(Debug, Default)]
pub(super) struct Input(Mutex<Option<Arc<Connected>>>);

impl Input {
    /// Lets input go to `guest`.
    ///
    /// # Errors
    /// If this process has no file left.
    pub(super) fn connect(&self, guest: &Arc<dyn TakesInput>) -> io::Result<()> {
        let connected = Connected {
            attention: guest.attention()?,
            guest: Arc::downgrade(guest),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(connected));
        Ok(())
    }

    /// The guest to which input goes.
    pub(super) fn connected(&self) -> Option<Arc<Connected>> {
        let connected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connected.clone()
    }

    /// Moves from `file`, which does not block, what it has and the guest has room for, once.
    pub(super) fn take_from(&self, file: BorrowedFd<'_>) -> Source {
        let guest = self.connected().and_then(|to| to.guest.upgrade());
        let Some(guest) = guest else {
            return Source::Empty;
        };
        let mut buffer = [0; 64];
        let room = guest.room().min(buffer.len());
        if room == 0 {
            return Source::Empty;
        }
        match rustix::io::read(file, &mut buffer[..room]) {
            Ok(0) => Source::Ended,
            Ok(length) => {
                guest.take(&buffer[..length]);
                Source::Open
            }
            Err(Errno::INTR) => Source::Open,
            Err(Errno::AGAIN) => Source::Empty,
            Err(_) => Source::Ended,
        }
    }
}
