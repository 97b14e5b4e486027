//! A guest for the tests, with a driver that sends any packet, and programs of the host.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use baton_config::VsockConfig;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::super::device::VirtioDevice;
use super::super::super::queues::Queues;
use super::super::super::test_support::{memory, queues_of};
use super::super::bounds::VsockBounds;
use super::super::credit::BUFFER;
use super::super::device::{TX_QUEUE, Vsock};
use super::super::packet::{HEADER, HOST_CID, PacketHeader, STREAM, ShutdownFlags, op};
use super::driver_queue::DriverQueue;
use crate::devices::error::DeviceError;

/// The guest's address.
pub(super) const CID: u32 = 3;
/// Flag of a descriptor that the device writes.
pub(super) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// Address of the packet that the guest sends.
pub(super) const SENT: u64 = 0x4_0000;
/// Address of the guest's buffer for a packet.
pub(super) const RECEIVED: u64 = 0x8_0000;
/// The guest's port of a connection, in most tests.
pub(super) const GUEST_PORT: u32 = 5000;
/// The host's port of a connection, in most tests.
pub(super) const HOST_PORT: u32 = 7;

/// A path for a socket. Dropping this removes the socket and that of [`HOST_PORT`].
pub(super) struct SocketPath(pub(super) PathBuf);

impl SocketPath {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("baton-vsock-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(super) fn open(&self) -> Result<Vsock, DeviceError> {
        self.open_with(VsockBounds::default())
    }

    pub(super) fn open_with(&self, bounds: VsockBounds) -> Result<Vsock, DeviceError> {
        let config = VsockConfig {
            cid: CID,
            path: self.0.clone(),
        };
        Vsock::open(&config, bounds)
    }

    pub(super) fn port(&self, port: u32) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        for path in [self.0.clone(), self.port(HOST_PORT)] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A guest and its device.
pub(super) struct TestGuest {
    pub(super) vsock: Vsock,
    pub(super) queues: Queues,
    pub(super) memory: GuestMemoryMmap,
    pub(super) rx: DriverQueue,
    pub(super) tx: DriverQueue,
    pub(super) path: SocketPath,
    /// The size of the guest's buffer, as the guest reports it.
    pub(super) buf_alloc: u32,
    /// The bytes that have left the guest's buffer, as the guest reports them.
    pub(super) fwd_cnt: u32,
}

impl TestGuest {
    pub(super) fn new() -> Self {
        Self::with(VsockBounds::default())
    }

    pub(super) fn with(bounds: VsockBounds) -> Self {
        let path = SocketPath::new();
        let memory = memory();
        let rx = DriverQueue::new(0x1000);
        let tx = DriverQueue::new(0x2000);
        let queues = vec![rx.queue(), tx.queue(), DriverQueue::new(0x3000).queue()];
        let queues = queues_of(&memory, queues);
        let mut vsock = path.open_with(bounds).expect("opens");
        vsock.on_restart(&queues);
        Self {
            vsock,
            queues,
            memory,
            rx,
            tx,
            path,
            buf_alloc: 1 << 20,
            fwd_cnt: 0,
        }
    }

    pub(super) fn header(&self, op: u16, host: u32, guest: u32) -> PacketHeader {
        PacketHeader {
            src_cid: CID.into(),
            dst_cid: HOST_CID,
            src_port: guest,
            dst_port: host,
            kind: STREAM,
            op,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
            ..PacketHeader::default()
        }
    }

    /// Sends parts of these lengths, which start with `bytes` and may be longer or shorter than that.
    pub(super) fn send_parts(&mut self, bytes: &[u8], lengths: &[usize]) {
        self.memory
            .write_slice(bytes, GuestAddress(SENT))
            .expect("memory");
        let mut at = SENT;
        let parts: Vec<_> = lengths
            .iter()
            .map(|length| {
                let part = (at, *length as u32, 0);
                at += *length as u64;
                part
            })
            .collect();
        self.send_chain(&parts);
    }

    pub(super) fn send_chain(&mut self, parts: &[(u64, u32, u16)]) {
        self.tx.give(&self.memory, parts);
        self.vsock.process_queue(TX_QUEUE, &mut self.queues);
        assert!(self.tx.used(&self.memory).is_some());
    }

    pub(super) fn send_header(&mut self, header: PacketHeader) {
        self.send_parts(&header.bytes(), &[HEADER]);
    }

    pub(super) fn send(&mut self, op: u16) {
        self.send_header(self.header(op, HOST_PORT, GUEST_PORT));
    }

    pub(super) fn shut_down(&mut self, flags: ShutdownFlags) {
        let header = self.header(op::SHUTDOWN, HOST_PORT, GUEST_PORT);
        self.send_header(PacketHeader {
            flags: flags.bits(),
            ..header
        });
    }

    pub(super) fn send_data(&mut self, data: &[u8]) {
        let header = PacketHeader {
            len: data.len() as u32,
            ..self.header(op::DATA, HOST_PORT, GUEST_PORT)
        };
        let mut bytes = header.bytes().to_vec();
        bytes.extend(data);
        self.send_parts(&bytes, &[HEADER, data.len()]);
    }

    /// Makes a buffer of this length available to the device, unless it has one.
    pub(super) fn offer_buffer(&mut self, length: u32) {
        if self.rx.given == self.rx.seen {
            self.rx.give(&self.memory, &[(RECEIVED, length, WRITE)]);
        }
    }

    /// The packet for which the device has used a buffer, if it has.
    pub(super) fn received(&mut self) -> Option<(PacketHeader, Vec<u8>)> {
        let length = self.rx.used(&self.memory)? as usize;
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(RECEIVED))
            .expect("memory");
        let data = bytes.split_off(HEADER);
        let header = PacketHeader::parse(&bytes.try_into().expect("a header"));
        assert_eq!(header.dst_cid, u64::from(CID));
        assert_eq!(header.len as usize, data.len());
        Some((header, data))
    }

    /// The next packet for the guest, after the events of the host's sockets were handled.
    pub(super) fn next(&mut self) -> Option<(PacketHeader, Vec<u8>)> {
        self.offer_buffer(4096);
        self.vsock.on_host_event(&mut self.queues);
        self.received()
    }

    /// The operation and flags of the next packet.
    pub(super) fn next_op(&mut self) -> Option<(u16, u32)> {
        self.next().map(|(header, _)| (header.op, header.flags))
    }

    pub(super) fn listen(&self) -> UnixListener {
        let path = self.path.port(HOST_PORT);
        let listener = UnixListener::bind(path).expect("listens");
        listener.set_nonblocking(true).expect("does not wait");
        listener
    }

    /// The host's end of a connection that the guest has requested.
    pub(super) fn connected(&mut self) -> UnixStream {
        let listener = self.listen();
        self.send(op::REQUEST);
        assert_eq!(self.next_op(), Some((op::RESPONSE, 0)));
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nonblocking(true).expect("does not wait");
        stream
    }

    /// A program of the host that connects to the device and sends `command`.
    pub(super) fn program(&self, command: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path.0).expect("connects");
        stream.write_all(command).expect("room");
        stream.set_nonblocking(true).expect("does not wait");
        stream
    }

    pub(super) fn host_event(&self) -> RawFd {
        self.vsock.host_event().expect("a file")
    }

    /// Whether the device's thread would be woken.
    pub(super) fn has_host_event(&self) -> bool {
        let epoll = Epoll::new().expect("an epoll");
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll
            .ctl(ControlOperation::Add, self.host_event(), event)
            .expect("watched");
        epoll.wait(0, &mut [EpollEvent::default()]).expect("waits") == 1
    }

    /// Sends more data than the Unix socket accepts, so that some stays in the device. `sent` bytes were sent
    /// before, and have been read. Returns how many have been sent now.
    pub(super) fn overfill_socket(&mut self, mut sent: usize) -> usize {
        let piece = vec![3; BUFFER as usize / 2];
        let mut taken = sent;
        while sent - taken <= BUFFER as usize / 2 {
            self.send_data(&piece);
            sent += piece.len();
            while let Some((header, _)) = self.next() {
                taken = header.fwd_cnt as usize;
            }
        }
        sent
    }
}

/// All bytes that can be read now, and whether the end follows.
pub(super) fn drain(mut stream: &UnixStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (all, true),
            Ok(length) => all.extend(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (all, false),
            // The connection was reset.
            Err(_) => return (all, true),
        }
    }
}

pub(super) fn is_closed(stream: &UnixStream) -> bool {
    drain(stream).1
}
