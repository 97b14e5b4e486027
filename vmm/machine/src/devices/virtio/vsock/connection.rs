//! One connection: a Unix socket here, a vsock in the guest, and what each side may still send.
//!
//! Each side tells the other in every packet how many bytes it keeps at most (`buf_alloc`) and how
//! many have left that buffer (`fwd_cnt`); the other sends no more than fits. We keep the guest's
//! bytes until the Unix socket takes them, and leave the host's in the Unix socket until the guest has
//! room, so that neither a slow program nor a slow guest costs memory beyond [`BUFFER`].
//!
//! All counters wrap. What a guest says of its own buffer only bounds what it is sent, at one packet
//! at a time, so nothing that it says is wrong for the host.
//!
//! Source: VIRTIO 1.2, 5.10.6.3 (buffer space) and 5.10.6.5 (stream sockets).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::packet::{Header, NEITHER, NO_RECEIVE, NO_SEND, op};

/// Most bytes of the guest's that are kept.
pub(super) const BUFFER: u32 = 64 << 10;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A program of the host wants it, and the guest has not agreed.
    Asked,
    /// Data flows.
    Open,
    /// It is over for the guest, and the host has not taken all.
    Leaving,
}

/// A packet that the guest may not send at this point: its connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A packet for the guest, as far as its connection knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes of data that were put into the buffer.
    pub(super) len: usize,
}

impl Packet {
    fn of(op: u16) -> Option<Self> {
        Some(Self {
            op,
            flags: 0,
            len: 0,
        })
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    phase: Phase,
    /// A request or an answer that the guest has not been sent.
    opening: Option<u16>,
    /// It stands in the line of those who have something for the guest.
    pub(super) queued: bool,

    /// The guest's bytes that the host has not taken.
    kept: VecDeque<u8>,
    /// How many have come from the guest.
    received: u32,
    /// The count of those that have left the buffer, as the guest has heard it last.
    told: u32,
    /// It wants to hear it.
    wants_credit: bool,
    /// What the guest will not do any more.
    guest_ended: u32,
    /// The host has been told that no more comes.
    end_passed_on: bool,
    /// The Unix socket takes bytes, as far as we know.
    writable: bool,
    /// It is watched for that, too.
    watched_for_room: bool,

    /// How many bytes have gone to the guest.
    sent: u32,
    /// What it keeps, and how many have left there.
    guest_buffer: u32,
    guest_taken: u32,
    /// It has been asked for more room.
    asked_for_room: bool,
    /// What the host will not do any more, and what of that the guest has heard.
    host_ended: u32,
    host_ended_told: u32,
    /// The Unix socket has bytes, or its end, as far as we know.
    readable: bool,
}

impl Connection {
    /// One that a program of the host wants.
    pub(super) fn asked_by_host(stream: UnixStream) -> Self {
        Self {
            stream,
            phase: Phase::Asked,
            opening: Some(op::REQUEST),
            queued: false,
            kept: VecDeque::new(),
            received: 0,
            told: 0,
            wants_credit: false,
            guest_ended: 0,
            end_passed_on: false,
            writable: true,
            watched_for_room: false,
            sent: 0,
            guest_buffer: 0,
            guest_taken: 0,
            asked_for_room: false,
            host_ended: 0,
            host_ended_told: 0,
            readable: true,
        }
    }

    /// One that the guest wants and the host has agreed to.
    pub(super) fn asked_by_guest(stream: UnixStream, request: &Header) -> Self {
        Self {
            phase: Phase::Open,
            opening: Some(op::RESPONSE),
            guest_buffer: request.buf_alloc,
            guest_taken: request.fwd_cnt,
            ..Self::asked_by_host(stream)
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether the guest knows nothing of it yet.
    pub(super) fn unheard_of(&self) -> bool {
        self.opening == Some(op::REQUEST)
    }

    /// Whether it is over for the guest.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    /// How many of the guest's bytes have left the buffer.
    fn forwarded(&self) -> u32 {
        self.received.wrapping_sub(self.kept.len() as u32)
    }

    /// The count of bytes that have left the buffer, for a packet that goes to the guest now.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.forwarded();
        self.wants_credit = false;
        self.told
    }

    /// Takes a packet of the guest's, other than a reset. `local` is the port of the host's side.
    pub(super) fn take(&mut self, header: &Header, data: &[u8], local: u32) -> Result<(), Broken> {
        self.guest_buffer = header.buf_alloc;
        self.guest_taken = header.fwd_cnt;
        if self.room_at_guest() > 0 {
            self.asked_for_room = false;
        }
        match (self.phase, header.op) {
            (Phase::Asked, op::RESPONSE) if !self.unheard_of() => self.agreed(local),
            (Phase::Open, op::DATA) if self.guest_ended & NO_SEND == 0 => self.keep(data),
            (Phase::Open, op::SHUTDOWN) => {
                self.guest_ended |= header.flags & NEITHER;
                if self.guest_ended & NO_RECEIVE != 0 {
                    // The host's programs hear of it when they write.
                    let _ = self.stream.shutdown(Shutdown::Read);
                }
                Ok(())
            }
            (Phase::Open, op::CREDIT_UPDATE) => Ok(()),
            (Phase::Open, op::CREDIT_REQUEST) => {
                self.wants_credit = true;
                Ok(())
            }
            _ => Err(Broken),
        }
    }

    /// The guest has agreed: the program hears `OK`.
    fn agreed(&mut self, local: u32) -> Result<(), Broken> {
        self.phase = Phase::Open;
        let line = format!("OK {local}\n");
        // Nothing was written before, so there is room for a line.
        match (&self.stream).write(line.as_bytes()) {
            Ok(written) if written == line.len() => Ok(()),
            _ => Err(Broken),
        }
    }

    /// Takes bytes of the guest's, which must fit: it knows how much room there is.
    fn keep(&mut self, data: &[u8]) -> Result<(), Broken> {
        if data.len() > BUFFER as usize - self.kept.len() {
            return Err(Broken);
        }
        self.received = self.received.wrapping_add(data.len() as u32);
        // Nobody reads any more: it is as if somebody had.
        if self.host_ended & NO_RECEIVE == 0 {
            self.kept.extend(data);
        }
        self.flush();
        Ok(())
    }

    /// Gives the host what it takes, and then the end if the guest has ended.
    pub(super) fn flush(&mut self) {
        while self.writable && !self.kept.is_empty() {
            let (first, _) = self.kept.as_slices();
            match (&self.stream).write(first) {
                Ok(gone @ 1..) => drop(self.kept.drain(..gone)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Ok(0) | Err(_) => self.host_reads_no_more(),
            }
        }
        if self.kept.is_empty() && self.guest_ended & NO_SEND != 0 && !self.end_passed_on {
            self.end_passed_on = true;
            // Fails if the host has gone.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Whether it is to be watched for room in the Unix socket from now on, or no more; `None` if all
    /// is as it was. Watched all the time, it would wake the thread whenever a program reads.
    pub(super) fn watch_for_room(&mut self) -> Option<bool> {
        let wanted = !self.writable && !self.kept.is_empty();
        let changes = wanted != self.watched_for_room;
        self.watched_for_room = wanted;
        changes.then_some(wanted)
    }

    fn host_reads_no_more(&mut self) {
        self.host_ended |= NO_RECEIVE;
        self.writable = false;
        self.kept = VecDeque::new();
    }

    /// The Unix socket has news.
    pub(super) fn stirred(&mut self, readable: bool, writable: bool, gone: bool) {
        self.readable |= readable || gone;
        self.writable |= writable && self.host_ended & NO_RECEIVE == 0;
        if gone {
            self.host_reads_no_more();
        }
    }

    /// Whether the program has gone before the guest agreed.
    pub(super) fn given_up(&self) -> bool {
        self.phase == Phase::Asked && self.host_ended & NO_RECEIVE != 0
    }

    /// Whether the guest wants no more of it. It does not hear of what the host takes after that.
    pub(super) fn guest_has_left(&mut self) -> bool {
        let left = self.phase == Phase::Open && self.guest_ended == NEITHER;
        if left {
            self.phase = Phase::Leaving;
        }
        left
    }

    /// Whether it is over for both.
    pub(super) fn is_over(&self) -> bool {
        self.is_leaving() && self.kept.is_empty()
    }

    /// Bytes that the guest has room for.
    fn room_at_guest(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.guest_taken);
        self.guest_buffer.saturating_sub(under_way)
    }

    /// Whether the host may have bytes for the guest, or its end.
    fn has_input(&self) -> bool {
        self.readable && self.host_ended & NO_SEND == 0 && self.guest_ended & NO_RECEIVE == 0
    }

    /// Whether the guest is to hear how much room there is: it believes that there is little, and
    /// there is more.
    fn credit_is_due(&self) -> bool {
        let believed = BUFFER.saturating_sub(self.received.wrapping_sub(self.told));
        self.wants_credit || believed < BUFFER / 2 && self.told != self.forwarded()
    }

    /// Whether there may be something for the guest.
    pub(super) fn has_news(&self) -> bool {
        let open = self.phase == Phase::Open;
        let input = self.has_input() && (self.room_at_guest() > 0 || !self.asked_for_room);
        let ended = self.host_ended != self.host_ended_told;
        self.opening.is_some() || open && (self.credit_is_due() || input || ended)
    }

    /// The next packet for the guest, with data in `buffer` if it is of that kind.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Option<Packet> {
        if let Some(op) = self.opening.take() {
            return Packet::of(op);
        }
        if self.phase != Phase::Open {
            return None;
        }
        if self.credit_is_due() {
            return Packet::of(op::CREDIT_UPDATE);
        }
        if self.has_input() {
            let room = self.room_at_guest();
            if room > 0 {
                let most = buffer.len().min(room as usize);
                if let Some(len) = self.read(&mut buffer[..most]) {
                    self.sent = self.sent.wrapping_add(len as u32);
                    return Some(Packet {
                        op: op::DATA,
                        flags: 0,
                        len,
                    });
                }
            } else if !self.asked_for_room {
                self.asked_for_room = true;
                return Packet::of(op::CREDIT_REQUEST);
            }
        }
        // After the data, or the end would overtake it.
        let ended = self.host_ended != self.host_ended_told;
        ended.then(|| {
            self.host_ended_told = self.host_ended;
            Packet {
                op: op::SHUTDOWN,
                flags: self.host_ended,
                len: 0,
            }
        })
    }

    /// Bytes from the host; none if there are none now, or never again.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match self.stream.read(buffer) {
                Ok(length @ 1..) => return Some(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => self.host_ended |= NO_SEND,
            }
            self.readable = false;
            return None;
        }
    }

    /// Fails if a bound does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.kept.len() <= BUFFER as usize);
        assert!(self.kept.capacity() <= 2 * BUFFER as usize);
    }
}
