//! One connection between a Unix socket of the host and a vsock of the guest.
//!
//! The guest's bytes are buffered until the Unix socket accepts them, and the host's bytes stay in the Unix
//! socket until the guest has room. So neither a slow program nor a slow guest uses memory beyond
//! [`BUFFER`](super::credit::BUFFER).
//!
//! Source: VIRTIO 1.2, 5.10.6.3 (buffer space) and 5.10.6.5 (stream sockets).

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::credit::{ReceiveCredit, SendCredit};
use super::from_host::FromHost;
use super::packet::{PacketHeader, ShutdownFlags, op};
use super::poller::Readiness;
use super::to_host::{Overflow, ToHost};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A program of the host has requested the connection, and the guest has not accepted it.
    Requested,
    /// Data flows.
    Open,
    /// The guest has closed the connection, and the host's program has not read everything.
    Closing,
}

/// The guest has sent a packet that it may not send at this point, so the connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProtocolError;

impl From<Overflow> for ProtocolError {
    fn from(_: Overflow) -> Self {
        Self
    }
}

/// A packet for the guest, without the fields that are the same for each packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) op: u16,
    pub(super) shutdown: ShutdownFlags,
    /// Bytes of data, which are in the caller's buffer.
    pub(super) len: usize,
}

impl Packet {
    fn of(op: u16) -> Self {
        Self {
            op,
            shutdown: ShutdownFlags::default(),
            len: 0,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// The request or response that opens the connection, until the guest has been sent it.
    opening: Option<u16>,
    to_host: ToHost,
    from_host: FromHost,
    receive_credit: ReceiveCredit,
    send_credit: SendCredit,
    /// The directions that the guest has ended.
    guest_ended: ShutdownFlags,
    /// The directions that the host's program has ended, as reported to the guest.
    host_ended_reported: ShutdownFlags,
}

impl Connection {
    /// A connection that a program of the host requests.
    pub(super) fn requested_by_host(stream: UnixStream) -> Self {
        Self {
            stream,
            phase: Phase::Requested,
            opening: Some(op::REQUEST),
            to_host: ToHost::new(),
            from_host: FromHost::new(),
            receive_credit: ReceiveCredit::default(),
            send_credit: SendCredit::default(),
            guest_ended: ShutdownFlags::default(),
            host_ended_reported: ShutdownFlags::default(),
        }
    }

    /// A connection that the guest has requested and a program of the host has accepted.
    pub(super) fn requested_by_guest(stream: UnixStream, request: &PacketHeader) -> Self {
        Self {
            phase: Phase::Open,
            opening: Some(op::RESPONSE),
            send_credit: SendCredit::new(request.buf_alloc, request.fwd_cnt),
            ..Self::requested_by_host(stream)
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether the guest has not been sent the request for this connection.
    pub(super) fn is_unannounced(&self) -> bool {
        self.opening == Some(op::REQUEST)
    }

    /// Whether the guest has closed the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Whether both sides have closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closing() && self.to_host.is_empty()
    }

    /// Whether the host's program has closed its socket before the guest has accepted the connection.
    pub(super) fn is_abandoned(&self) -> bool {
        self.phase == Phase::Requested && self.to_host.is_closed()
    }

    /// The value of `fwd_cnt` for a packet that goes to the guest now.
    pub(super) fn report_credit(&mut self) -> u32 {
        self.receive_credit.report(self.to_host.buffered())
    }

    /// Handles a packet of the guest other than a reset. `host_port` is the port of the host's side.
    pub(super) fn handle_packet(
        &mut self,
        header: &PacketHeader,
        data: &[u8],
        host_port: u32,
    ) -> Result<(), ProtocolError> {
        self.send_credit.update(header.buf_alloc, header.fwd_cnt);
        match (self.phase, header.op) {
            (Phase::Requested, op::RESPONSE) if !self.is_unannounced() => self.accepted(host_port),
            (Phase::Open, op::DATA) if !self.guest_ended.contains(ShutdownFlags::NO_SEND) => {
                self.receive(data)
            }
            (Phase::Open, op::SHUTDOWN) => {
                self.shut_down(ShutdownFlags::from_guest(header.flags));
                Ok(())
            }
            (Phase::Open, op::CREDIT_UPDATE) => Ok(()),
            (Phase::Open, op::CREDIT_REQUEST) => {
                self.receive_credit.request();
                Ok(())
            }
            _ => Err(ProtocolError),
        }
    }

    /// The guest has accepted the connection, which is reported to the host's program by `OK`.
    fn accepted(&mut self, host_port: u32) -> Result<(), ProtocolError> {
        self.phase = Phase::Open;
        let reply = format!("OK {host_port}\n");
        // Nothing was written to the socket before, so there is room for the reply.
        match (&self.stream).write(reply.as_bytes()) {
            Ok(written) if written == reply.len() => Ok(()),
            _ => Err(ProtocolError),
        }
    }

    /// Takes bytes of the guest. They must fit into the buffer, because its free space is reported to the guest.
    fn receive(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        self.to_host.push(data)?;
        self.receive_credit.receive(data.len() as u32);
        self.flush();
        Ok(())
    }

    /// The guest ends these directions.
    fn shut_down(&mut self, ended: ShutdownFlags) {
        self.guest_ended.insert(ended);
        if self.guest_ended.contains(ShutdownFlags::NO_RECEIVE) {
            // The next write of the host's program fails then.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        if self.guest_ended.contains(ShutdownFlags::NO_SEND) {
            self.to_host.end();
        }
    }

    /// Writes to the Unix socket what it accepts.
    pub(super) fn flush(&mut self) {
        self.to_host.flush(&self.stream);
    }

    /// See [`ToHost::take_watch_change`].
    pub(super) fn take_watch_change(&mut self) -> Option<bool> {
        self.to_host.take_watch_change()
    }

    /// The Unix socket has become ready.
    pub(super) fn on_socket_ready(&mut self, ready: Readiness) {
        if ready.readable || ready.hung_up {
            self.from_host.on_readable();
        }
        if ready.writable {
            self.to_host.on_writable();
        }
        if ready.hung_up {
            self.to_host.close();
        }
    }

    /// Closes the connection for the guest if it has ended both directions. Returns whether that was so. What
    /// the host's program reads after this is not reported to the guest.
    pub(super) fn take_guest_close(&mut self) -> bool {
        let closes = self.phase == Phase::Open && self.guest_ended == ShutdownFlags::BOTH;
        if closes {
            self.phase = Phase::Closing;
        }
        closes
    }

    /// The directions that the host's program has ended.
    fn host_ended(&self) -> ShutdownFlags {
        let mut ended = ShutdownFlags::default();
        if self.to_host.is_closed() {
            ended.insert(ShutdownFlags::NO_RECEIVE);
        }
        if self.from_host.has_ended() {
            ended.insert(ShutdownFlags::NO_SEND);
        }
        ended
    }

    /// Whether there may be bytes for the guest, or their end, and the guest receives them.
    fn may_have_input(&self) -> bool {
        self.from_host.may_have_input() && !self.guest_ended.contains(ShutdownFlags::NO_RECEIVE)
    }

    fn is_credit_report_due(&self) -> bool {
        self.receive_credit.is_report_due(self.to_host.buffered())
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn may_have_packet(&self) -> bool {
        let can_proceed = self.send_credit.available() > 0 || self.send_credit.is_request_due();
        let open = self.phase == Phase::Open;
        self.opening.is_some()
            || open
                && (self.is_credit_report_due()
                    || self.may_have_input() && can_proceed
                    || self.host_ended() != self.host_ended_reported)
    }

    /// The next packet for the guest. The data of a data packet is put into `buffer`.
    pub(super) fn next_packet(&mut self, buffer: &mut [u8]) -> Option<Packet> {
        if let Some(op) = self.opening.take() {
            return Some(Packet::of(op));
        }
        if self.phase != Phase::Open {
            return None;
        }
        if self.is_credit_report_due() {
            return Some(Packet::of(op::CREDIT_UPDATE));
        }
        // The shutdown comes last. Otherwise it would overtake the data.
        self.next_input(buffer).or_else(|| self.next_shutdown())
    }

    /// A packet with data, or the request for the credit that this needs.
    fn next_input(&mut self, buffer: &mut [u8]) -> Option<Packet> {
        if !self.may_have_input() {
            return None;
        }
        if self.send_credit.is_request_due() {
            self.send_credit.request();
            return Some(Packet::of(op::CREDIT_REQUEST));
        }
        let limit = buffer.len().min(self.send_credit.available() as usize);
        if limit == 0 {
            return None;
        }
        let len = self.from_host.read(&self.stream, &mut buffer[..limit])?;
        self.send_credit.spend(len as u32);
        Some(Packet {
            len,
            ..Packet::of(op::DATA)
        })
    }

    fn next_shutdown(&mut self) -> Option<Packet> {
        let shutdown = self.host_ended();
        if shutdown == self.host_ended_reported {
            return None;
        }
        self.host_ended_reported = shutdown;
        Some(Packet {
            shutdown,
            ..Packet::of(op::SHUTDOWN)
        })
    }

    /// Fails if a bound does not hold.
    #[cfg(test)]
    pub(super) fn assert_bounds(&self) {
        self.to_host.assert_bounds();
    }
}
