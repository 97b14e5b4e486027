//! A guest's sockets as a virtio device: its queues and the packets in them.

use std::os::fd::RawFd;

use baton_config::VsockConfig;
use baton_os::nospec;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

use super::super::device::VirtioDevice;
use super::super::features::Features;
use super::super::queues::Queues;
use super::super::request::Request;
use super::bounds::VsockBounds;
use super::credit::BUFFER;
use super::listener::VsockListener;
use super::muxer::VsockMuxer;
use super::packet::{HEADER, PacketHeader, op};
use crate::devices::error::DeviceError;

/// Index of the queue with buffers for packets to the guest.
pub(super) const RX_QUEUE: usize = 0;
/// Index of the queue with packets of the guest.
pub(super) const TX_QUEUE: usize = 1;
/// Receive, transmit, and events; the host never reports an event.
const QUEUES: usize = 3;
/// The feature `VIRTIO_VSOCK_F_STREAM`: sockets that transport streams.
const FEATURE_STREAM: u32 = 0;

/// The sockets of one guest.
pub(crate) struct Vsock {
    cid: u32,
    pub(super) muxer: VsockMuxer,
    /// The data of one packet.
    buffer: Vec<u8>,
}

impl Vsock {
    /// Listens for programs of the host.
    pub(crate) fn open(config: &VsockConfig, bounds: VsockBounds) -> Result<Self, DeviceError> {
        let listener = VsockListener::open(&config.path)?;
        Ok(Self {
            cid: config.cid,
            muxer: VsockMuxer::new(config.cid, bounds, listener)?,
            buffer: vec![0; BUFFER as usize],
        })
    }

    fn process_rx(&mut self, queues: &mut Queues) {
        if !self.muxer.may_have_packet() {
            return;
        }
        queues.for_each_request(RX_QUEUE, |request| {
            // A buffer that is too short for any data is returned unused.
            let room = request.writable().saturating_sub(HEADER);
            if room == 0 {
                return Some(0);
            }
            let room = room.min(self.buffer.len());
            let header = self.muxer.next_packet(&mut self.buffer[..room])?;
            let data = &self.buffer[..header.len as usize];
            let written = request
                .write(&header.bytes())
                .and_then(|()| request.write(data));
            if written.is_err() {
                self.muxer.on_lost_packet(&header);
            }
            let written = written.map_or(0, |()| HEADER + data.len());
            Some(written as u32)
        });
    }

    fn process_tx(&mut self, queues: &mut Queues) {
        queues.for_each_request(TX_QUEUE, |request| {
            self.handle_packet(request);
            Some(0)
        });
    }

    fn handle_packet(&mut self, request: &mut Request) {
        let mut header = [0; HEADER];
        if request.read(&mut header).is_err() {
            return;
        }
        let header = PacketHeader::parse(&header);
        // Only data packets have data; `len` of all others is ignored.
        let length = match header.op {
            op::DATA => header.len as usize,
            _ => 0,
        };
        // No connection ever has room for more than the buffer.
        let data = match nospec::first_mut(&mut self.buffer, length) {
            Some(data) => request.read(data).ok().map(|()| &*data),
            None => None,
        };
        // If the driver has stopped the queue meanwhile, the packet is void.
        if !request.is_void() {
            self.muxer.handle_packet(&header, data);
        }
    }
}

impl VirtioDevice for Vsock {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> Features {
        Features::of(&[FEATURE_STREAM])
    }

    fn queue_count(&self) -> usize {
        QUEUES
    }

    fn config_space(&self) -> Vec<u8> {
        u64::from(self.cid).to_le_bytes().to_vec()
    }

    fn process_queue(&mut self, index: usize, queues: &mut Queues) {
        if index == TX_QUEUE {
            self.process_tx(queues);
            self.muxer.accept_remaining();
        }
        // Most packets of the guest have an answer.
        self.process_rx(queues);
    }

    fn host_event(&self) -> Option<RawFd> {
        Some(self.muxer.event())
    }

    fn on_host_event(&mut self, queues: &mut Queues) {
        self.muxer.on_ready();
        self.process_rx(queues);
    }

    fn on_restart(&mut self, queues: &Queues) {
        self.muxer.restart(!queues.setup.queues.is_empty());
    }
}
