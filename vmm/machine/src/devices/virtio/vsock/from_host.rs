//! The direction from the host to the guest. The bytes stay in the Unix socket until the guest has room.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

/// What is known of the bytes in a Unix socket.
#[derive(Debug)]
pub(super) struct FromHost {
    /// Whether the Unix socket has bytes or its end, as far as is known.
    readable: bool,
    /// The host's program sends no more.
    ended: bool,
}

impl FromHost {
    pub(super) fn new() -> Self {
        Self {
            readable: true,
            ended: false,
        }
    }

    /// Whether the host's program sends no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether there may be bytes, or their end.
    pub(super) fn may_have_input(&self) -> bool {
        self.readable && !self.ended
    }

    /// The Unix socket has bytes, or its end.
    pub(super) fn on_readable(&mut self) {
        self.readable = true;
    }

    /// Reads bytes into `buffer`. Returns their number; `None` if there are none now, or never again.
    pub(super) fn read(&mut self, mut stream: &UnixStream, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match stream.read(buffer) {
                Ok(length @ 1..) => return Some(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => self.ended = true,
            }
            self.readable = false;
            return None;
        }
    }
}
