//! Programs of the host that have connected and not yet named the port that they request.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

/// Longest command with its newline, bytes: `CONNECT 4294967295` and some room.
const MAX_COMMAND: usize = 32;

/// A program of the host requests a connection to a port of the guest.
#[derive(Debug)]
pub(super) struct HostRequest {
    pub(super) stream: UnixStream,
    pub(super) guest_port: u32,
}

/// What a pending connection has sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostCommand {
    /// A part of a command.
    Incomplete,
    /// The request for a connection to this port of the guest.
    Connect(u32),
    /// No command, or the socket is closed.
    Invalid,
}

#[derive(Debug)]
struct PendingConnection {
    stream: UnixStream,
    command: Vec<u8>,
}

impl PendingConnection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            command: Vec::with_capacity(MAX_COMMAND),
        }
    }

    /// Reads what has arrived of the command. Bytes after its newline are not read, because they are for the
    /// guest.
    fn read_command(&mut self) -> HostCommand {
        while self.command.len() < MAX_COMMAND {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1..) if byte == *b"\n" => return parse(&self.command),
                Ok(1..) => self.command.extend_from_slice(&byte),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return HostCommand::Incomplete;
                }
                Ok(0) | Err(_) => return HostCommand::Invalid,
            }
        }
        HostCommand::Invalid
    }
}

/// The command `CONNECT port`, without its newline.
fn parse(command: &[u8]) -> HostCommand {
    let port = || {
        let mut words = std::str::from_utf8(command).ok()?.split_ascii_whitespace();
        let is_connect = words.next()?.eq_ignore_ascii_case("connect");
        let port = words.next()?.parse().ok()?;
        (is_connect && words.next().is_none()).then_some(port)
    };
    port().map_or(HostCommand::Invalid, HostCommand::Connect)
}

/// The pending connections of one guest, up to a limit.
#[derive(Debug)]
pub(super) struct PendingConnections {
    limit: usize,
    /// The one that has been pending for longest is first.
    connections: VecDeque<PendingConnection>,
}

impl PendingConnections {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            connections: VecDeque::new(),
        }
    }

    /// Adds a program that has just connected. At the limit, the socket of the program that has been pending for
    /// longest is closed. Returns the request if it has arrived already, which is so for most programs.
    pub(super) fn add(&mut self, stream: UnixStream) -> Option<HostRequest> {
        if self.connections.len() >= self.limit {
            self.connections.pop_front();
        }
        self.connections.push_back(PendingConnection::new(stream));
        self.poll(self.connections.len() - 1)
    }

    /// Reads from all pending connections, and returns the requests that are complete. A connection with an
    /// invalid command is closed.
    pub(super) fn take_requests(&mut self) -> Vec<HostRequest> {
        (0..self.connections.len())
            .rev()
            .filter_map(|index| self.poll(index))
            .collect()
    }

    fn poll(&mut self, index: usize) -> Option<HostRequest> {
        match self.connections.get_mut(index)?.read_command() {
            HostCommand::Incomplete => None,
            HostCommand::Connect(guest_port) => {
                let stream = self.connections.remove(index)?.stream;
                Some(HostRequest { stream, guest_port })
            }
            HostCommand::Invalid => {
                self.connections.remove(index);
                None
            }
        }
    }

    /// Fails if the limit does not hold.
    #[cfg(test)]
    pub(super) fn assert_bounds(&self) {
        assert!(self.connections.len() <= self.limit);
    }
}
