//! Sockets between guest and host: a network without one.
//!
//! The guest's stream sockets of the family `AF_VSOCK` end at Unix sockets of the host (`host.rs`).
//! Here are the queues and what is in them; `exchange.rs` has the connections, `connection.rs` one of
//! them, `packet.rs` the header.
//!
//! A guest can send what it likes. A packet that is none is dropped, or answered by a reset; one that
//! breaks the rules ends its connection, and no other.
//!
//! Source: VIRTIO 1.2, 5.10.

mod connection;
mod listener;
mod muxer;
mod packet;

use std::io;
use std::os::fd::RawFd;

use baton_config::VsockConfig;
use baton_os::nospec;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use super::{Device, DeviceError, Request, Rings};
use connection::BUFFER;
use listener::Listener;
pub use muxer::Bounds;
use muxer::Exchange;
use packet::{HEADER, Header, op};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Receive, transmit, and events, of which we have none to report.
const QUEUES: usize = 3;
/// Feature bit: sockets that are streams.
const FEATURE_STREAM: u64 = 1;

/// A guest's sockets.
pub(super) struct Vsock {
    cid: u32,
    exchange: Exchange,
    /// The data of one packet.
    buffer: Vec<u8>,
}

impl Vsock {
    /// Listens for programs of the host.
    pub(super) fn open(config: &VsockConfig, bounds: Bounds) -> Result<Self, DeviceError> {
        let listener = Listener::open(&config.path)?;
        Ok(Self {
            cid: config.cid,
            exchange: Exchange::new(config.cid, bounds, listener)?,
            buffer: vec![0; BUFFER as usize],
        })
    }

    fn receive(&mut self, rings: &mut Rings) {
        if !self.exchange.has_news() {
            return;
        }
        rings.each(RECEIVE, |request| {
            // A buffer that is too short for any data goes back as it is.
            let room = request.writable().saturating_sub(HEADER);
            if room == 0 {
                return Some(0);
            }
            let room = room.min(self.buffer.len());
            let header = self.exchange.next_packet(&mut self.buffer[..room])?;
            let data = &self.buffer[..header.len as usize];
            let written = request
                .write(&header.bytes())
                .and_then(|()| request.write(data));
            if written.is_err() {
                self.exchange.lost(&header);
            }
            let written = written.map_or(0, |()| HEADER + data.len());
            Some(written as u32)
        });
    }

    fn transmit(&mut self, rings: &mut Rings) {
        rings.each(TRANSMIT, |request| {
            self.packet(request);
            Some(0)
        });
    }

    /// Takes one packet.
    fn packet(&mut self, request: &mut Request) {
        let mut header = [0; HEADER];
        if request.read(&mut header).is_err() {
            return;
        }
        let header = Header::parse(&header);
        // Only these have data; what else there is belongs to nothing.
        let length = match header.op {
            op::DATA => header.len as usize,
            _ => 0,
        };
        // More than the buffer would be more than anybody has room for.
        let data = match nospec::first_mut(&mut self.buffer, length) {
            Some(data) => request.read(data).ok().map(|()| &*data),
            None => None,
        };
        // A packet of a queue that the driver has stopped meanwhile: there is none.
        if !request.is_void() {
            self.exchange.take_packet(&header, data);
        }
    }
}

impl Device for Vsock {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        FEATURE_STREAM
    }

    fn queues(&self) -> usize {
        QUEUES
    }

    fn config(&self) -> Vec<u8> {
        u64::from(self.cid).to_le_bytes().to_vec()
    }

    fn serve(&mut self, index: usize, rings: &mut Rings) {
        if index == TRANSMIT {
            self.transmit(rings);
            self.exchange.let_in_rest();
        }
        // Most packets of the guest's have an answer.
        self.receive(rings);
    }

    fn source(&self) -> Option<io::Result<RawFd>> {
        Some(Ok(self.exchange.source()))
    }

    fn arrived(&mut self, rings: &mut Rings) {
        self.exchange.arrived();
        self.receive(rings);
    }

    fn restarted(&mut self, rings: &Rings) {
        self.exchange.restart(!rings.setup.queues.is_empty());
    }
}

#[cfg(test)]
mod tests;
