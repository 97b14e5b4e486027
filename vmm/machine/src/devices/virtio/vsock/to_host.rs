//! The direction from the guest to the host: the bytes that the Unix socket has not accepted yet.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::credit::BUFFER;

/// The guest has sent more than the buffer has room for.
#[derive(Debug)]
pub(super) struct Overflow;

/// The guest's bytes on their way into a Unix socket, at most [`BUFFER`].
#[derive(Debug)]
pub(super) struct ToHost {
    buffer: VecDeque<u8>,
    /// Whether the Unix socket accepts bytes, as far as is known.
    writable: bool,
    /// Whether the Unix socket is watched for room.
    watched: bool,
    /// The guest sends no more.
    ended: bool,
    /// The end has been passed on to the Unix socket.
    end_forwarded: bool,
    /// The host's program no longer receives.
    closed: bool,
}

impl ToHost {
    pub(super) fn new() -> Self {
        Self {
            buffer: VecDeque::new(),
            writable: true,
            watched: false,
            ended: false,
            end_forwarded: false,
            closed: false,
        }
    }

    /// Bytes in the buffer.
    pub(super) fn buffered(&self) -> u32 {
        self.buffer.len() as u32
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether the host's program no longer receives.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes bytes of the guest. If the host's program no longer receives, they are dropped, as if it
    /// had read them.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Overflow> {
        if data.len() > BUFFER as usize - self.buffer.len() {
            return Err(Overflow);
        }
        if !self.closed {
            self.buffer.extend(data);
        }
        Ok(())
    }

    /// The guest sends no more after what is buffered.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Writes to `stream` what it accepts, and then passes the end on if the guest has ended.
    pub(super) fn flush(&mut self, mut stream: &UnixStream) {
        while self.writable && !self.buffer.is_empty() {
            let (first, _) = self.buffer.as_slices();
            match stream.write(first) {
                Ok(written @ 1..) => drop(self.buffer.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Ok(0) | Err(_) => self.close(),
            }
        }
        if self.buffer.is_empty() && self.ended && !self.end_forwarded {
            self.end_forwarded = true;
            // Fails if the host's program has closed its socket.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// The host's program no longer receives.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.writable = false;
        self.buffer = VecDeque::new();
    }

    /// The Unix socket has room again.
    pub(super) fn on_writable(&mut self) {
        self.writable |= !self.closed;
    }

    /// Whether the Unix socket must be watched for room from now on, or no longer; `None` if nothing changes. A
    /// socket that is always watched would wake the thread whenever its program reads.
    pub(super) fn take_watch_change(&mut self) -> Option<bool> {
        let needed = !self.writable && !self.buffer.is_empty();
        let changes = needed != self.watched;
        self.watched = needed;
        changes.then_some(needed)
    }

    /// Fails if a bound does not hold.
    #[cfg(test)]
    pub(super) fn assert_bounds(&self) {
        assert!(self.buffer.len() <= BUFFER as usize);
        assert!(self.buffer.capacity() <= 2 * BUFFER as usize);
    }
}
