use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::super::queues::tests::{memory, rings};
use super::connection::BUFFER;
use super::muxer::{MOST_CONNECTIONS, MOST_NEWCOMERS, MOST_RESETS};
use super::packet::{HOST, NEITHER, NO_RECEIVE, NO_SEND, STREAM};
use super::*;

const CID: u32 = 3;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
/// Where the guest keeps things.
const SENT: u64 = 0x4_0000;
const RECEIVED: u64 = 0x8_0000;
/// Ports of a connection in most tests.
const GUEST_PORT: u32 = 5000;
const HOST_PORT: u32 = 7;

/// A path for a socket, under which nothing is left.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("baton-vsock-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Result<Vsock, DeviceError> {
        self.open_with(Bounds::default())
    }

    fn open_with(&self, bounds: Bounds) -> Result<Vsock, DeviceError> {
        let config = VsockConfig {
            cid: CID,
            path: self.0.clone(),
        };
        Vsock::open(&config, bounds)
    }

    fn port(&self, port: u32) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in [self.0.clone(), self.port(HOST_PORT)] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A queue as its driver sees it, with one request in it at a time.
struct Ring {
    at: u64,
    /// Entries made available, and those seen used.
    given: u16,
    seen: u16,
}

impl Ring {
    const SIZE: u16 = 16;
    const AVAILABLE: u64 = 0x400;
    const USED: u64 = 0x800;

    fn new(at: u64) -> Self {
        Self {
            at,
            given: 0,
            seen: 0,
        }
    }

    fn queue(&self) -> Queue {
        let mut queue = Queue::new(Self::SIZE).expect("a queue");
        queue.set_desc_table_address(Some(self.at as u32), Some(0));
        queue.set_avail_ring_address(Some((self.at + Self::AVAILABLE) as u32), Some(0));
        queue.set_used_ring_address(Some((self.at + Self::USED) as u32), Some(0));
        queue.set_ready(true);
        queue
    }

    /// Puts in a request of parts with an address, a length and flags.
    fn give(&mut self, memory: &GuestMemoryMmap, parts: &[(u64, u32, u16)]) {
        for (place, (at, length, flags)) in parts.iter().enumerate() {
            let next = match place + 1 < parts.len() {
                true => VRING_DESC_F_NEXT as u16,
                false => 0,
            };
            let mut bytes = at.to_le_bytes().to_vec();
            bytes.extend(length.to_le_bytes());
            bytes.extend((flags | next).to_le_bytes());
            bytes.extend((place as u16 + 1).to_le_bytes());
            let entry = GuestAddress(self.at + 16 * place as u64);
            memory.write_slice(&bytes, entry).expect("a part");
        }
        let entry = self.at + Self::AVAILABLE + 4 + 2 * u64::from(self.given % Self::SIZE);
        memory.write_obj(0u16, GuestAddress(entry)).expect("entry");
        self.given = self.given.wrapping_add(1);
        let index = GuestAddress(self.at + Self::AVAILABLE + 2);
        memory.write_obj(self.given.to_le(), index).expect("index");
    }

    /// How many bytes the device has written for a request, if it has used it.
    fn used(&mut self, memory: &GuestMemoryMmap) -> Option<u32> {
        let index = GuestAddress(self.at + Self::USED + 2);
        let index: u16 = memory.read_obj(index).expect("index");
        if u16::from_le(index) == self.seen {
            return None;
        }
        let entry = self.at + Self::USED + 8 + 8 * u64::from(self.seen % Self::SIZE);
        self.seen = self.seen.wrapping_add(1);
        let length: u32 = memory.read_obj(GuestAddress(entry)).expect("length");
        Some(u32::from_le(length))
    }
}

/// A guest and its device.
struct Guest {
    vsock: Vsock,
    rings: Rings,
    memory: GuestMemoryMmap,
    receive: Ring,
    transmit: Ring,
    place: Place,
    /// What the guest says of its own buffer.
    buf_alloc: u32,
    fwd_cnt: u32,
}

impl Guest {
    fn new() -> Self {
        Self::with(Bounds::default())
    }

    fn with(bounds: Bounds) -> Self {
        let place = Place::new();
        let memory = memory();
        let receive = Ring::new(0x1000);
        let transmit = Ring::new(0x2000);
        let queues = vec![receive.queue(), transmit.queue(), Ring::new(0x3000).queue()];
        let rings = rings(&memory, queues);
        let mut vsock = place.open_with(bounds).expect("opens");
        vsock.restarted(&rings);
        Self {
            vsock,
            rings,
            memory,
            receive,
            transmit,
            place,
            buf_alloc: 1 << 20,
            fwd_cnt: 0,
        }
    }

    fn header(&self, op: u16, host: u32, guest: u32) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST,
            src_port: guest,
            dst_port: host,
            kind: STREAM,
            op,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
            ..Header::default()
        }
    }

    /// Sends these bytes in parts of these lengths, which need not be the bytes' own.
    fn send_parts(&mut self, bytes: &[u8], lengths: &[usize]) {
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

    fn send_chain(&mut self, parts: &[(u64, u32, u16)]) {
        self.transmit.give(&self.memory, parts);
        self.vsock.serve(TRANSMIT, &mut self.rings);
        assert!(self.transmit.used(&self.memory).is_some());
    }

    fn send_header(&mut self, header: Header) {
        self.send_parts(&header.bytes(), &[HEADER]);
    }

    fn send(&mut self, op: u16) {
        self.send_header(self.header(op, HOST_PORT, GUEST_PORT));
    }

    fn shut_down(&mut self, flags: u32) {
        let header = self.header(op::SHUTDOWN, HOST_PORT, GUEST_PORT);
        self.send_header(Header { flags, ..header });
    }

    fn send_data(&mut self, data: &[u8]) {
        let header = Header {
            len: data.len() as u32,
            ..self.header(op::DATA, HOST_PORT, GUEST_PORT)
        };
        let mut bytes = header.bytes().to_vec();
        bytes.extend(data);
        self.send_parts(&bytes, &[HEADER, data.len()]);
    }

    /// Gives a buffer of this length to the device, unless it has one.
    fn lend(&mut self, length: u32) {
        if self.receive.given == self.receive.seen {
            self.receive
                .give(&self.memory, &[(RECEIVED, length, WRITE)]);
        }
    }

    /// What the device has used a buffer for.
    fn received(&mut self) -> Option<(Header, Vec<u8>)> {
        let length = self.receive.used(&self.memory)? as usize;
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(RECEIVED))
            .expect("memory");
        let data = bytes.split_off(HEADER);
        let header = Header::parse(&bytes.try_into().expect("a header"));
        assert_eq!(header.dst_cid, u64::from(CID));
        assert_eq!(header.len as usize, data.len());
        Some((header, data))
    }

    /// The next packet for the guest, after news from the host has been heard.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        self.lend(4096);
        self.vsock.arrived(&mut self.rings);
        self.received()
    }

    /// Its operation and flags.
    fn next_op(&mut self) -> Option<(u16, u32)> {
        self.next().map(|(header, _)| (header.op, header.flags))
    }

    fn listen(&self) -> UnixListener {
        let path = self.place.port(HOST_PORT);
        let listener = UnixListener::bind(path).expect("listens");
        listener.set_nonblocking(true).expect("does not wait");
        listener
    }

    /// A connection that the guest has begun; the host's end.
    fn connected(&mut self) -> UnixStream {
        let listener = self.listen();
        self.send(op::REQUEST);
        assert_eq!(self.next_op(), Some((op::RESPONSE, 0)));
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nonblocking(true).expect("does not wait");
        stream
    }

    /// A program that connects to the device and says this.
    fn program(&self, line: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(&self.place.0).expect("connects");
        stream.write_all(line).expect("room");
        stream.set_nonblocking(true).expect("does not wait");
        stream
    }

    fn source(&self) -> RawFd {
        let source = self.vsock.source().expect("a file");
        source.expect("a file")
    }

    /// Whether the device's thread would be woken.
    fn is_stirred(&self) -> bool {
        let epoll = Epoll::new().expect("an epoll");
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll
            .ctl(ControlOperation::Add, self.source(), event)
            .expect("watched");
        epoll.wait(0, &mut [EpollEvent::default()]).expect("waits") == 1
    }
}

/// All that there is to read now, and whether it is the end.
fn drain(mut stream: &UnixStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (all, true),
            Ok(length) => all.extend(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (all, false),
            // The end of one that was cut off.
            Err(_) => return (all, true),
        }
    }
}

fn is_closed(stream: &UnixStream) -> bool {
    drain(stream).1
}

#[test]
fn a_program_of_the_host_reaches_the_guest() {
    let mut guest = Guest::new();
    let mut program = guest.program(b"CONNECT 52\n");
    let (request, _) = guest.next().expect("a request");
    assert_eq!((request.op, request.dst_port), (op::REQUEST, 52));
    assert_eq!((request.src_cid, request.kind), (HOST, STREAM));
    assert_eq!(request.buf_alloc, BUFFER);
    assert_eq!(drain(&program), (Vec::new(), false));
    let port = request.src_port;
    guest.send_header(guest.header(op::RESPONSE, port, 52));
    assert_eq!(drain(&program).0, format!("OK {port}\n").as_bytes());

    program.write_all(b"to the guest").expect("room");
    assert_eq!(guest.next().expect("data").1, b"to the guest");
    let mut bytes = Header {
        len: 11,
        ..guest.header(op::DATA, port, 52)
    }
    .bytes()
    .to_vec();
    bytes.extend(b"to the host");
    guest.send_parts(&bytes, &[bytes.len()]);
    assert_eq!(drain(&program).0, b"to the host");
}

#[test]
fn what_a_program_says_before_the_guest_agrees_waits_for_it() {
    let mut guest = Guest::new();
    let program = guest.program(b"connect 52\nhello");
    let (request, _) = guest.next().expect("a request");
    assert_eq!(guest.next(), None);
    guest.send_header(guest.header(op::RESPONSE, request.src_port, 52));
    assert_eq!(guest.next().expect("data").1, b"hello");
    assert!(!is_closed(&program));
}

#[test]
fn a_port_that_the_guest_refuses_closes_the_programs_socket() {
    let mut guest = Guest::new();
    let program = guest.program(b"CONNECT 52\n");
    let (request, _) = guest.next().expect("a request");
    guest.send_header(guest.header(op::RESET, request.src_port, 52));
    assert_eq!(drain(&program), (Vec::new(), true));
    assert_eq!(guest.next(), None);
}

#[test]
fn a_program_that_gives_up_before_the_guest_agrees_leaves_nothing() {
    let mut guest = Guest::new();
    let program = guest.program(b"CONNECT 52\n");
    let (request, _) = guest.next().expect("a request");
    drop(program);
    let (reset, _) = guest.next().expect("a reset");
    assert_eq!((reset.op, reset.src_port), (op::RESET, request.src_port));
    // The guest's answer has crossed that.
    guest.send_header(guest.header(op::RESPONSE, request.src_port, 52));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));

    // Of one whose request has not found a buffer the guest hears nothing.
    let program = guest.program(b"CONNECT 52\n");
    guest.vsock.arrived(&mut guest.rings);
    drop(program);
    assert_eq!(guest.next(), None);
}

#[test]
fn an_answer_to_a_request_that_was_not_sent_is_none() {
    let mut guest = Guest::new();
    // The guest has given no buffer, so it cannot know.
    let program = guest.program(b"CONNECT 52\n");
    guest.vsock.arrived(&mut guest.rings);
    guest.send_header(guest.header(op::RESPONSE, 1 << 30, 52));
    assert_eq!(drain(&program), (Vec::new(), true));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    assert_eq!(guest.next(), None);
}

#[test]
fn lines_that_name_no_port_close_the_programs_socket() {
    for line in [
        "CONNECT\n",
        "CONNECT x\n",
        "CONNECT 4294967296\n",
        "CONNECT 1 2\n",
        "GET / HTTP/1.1\n",
        "\n",
        "CONNECT 0000000000000000000000000052\n",
    ] {
        let mut guest = Guest::new();
        let program = guest.program(line.as_bytes());
        assert_eq!(guest.next(), None, "{line}");
        assert!(is_closed(&program), "{line}");
    }
    let mut guest = Guest::new();
    let program = guest.program(b"\xff\xfe\n");
    assert_eq!(guest.next(), None);
    assert!(is_closed(&program));
}

#[test]
fn a_line_may_come_in_pieces() {
    let mut guest = Guest::new();
    let mut program = guest.program(b"CONN");
    assert_eq!(guest.next(), None);
    program.write_all(b"ECT 52").expect("room");
    assert_eq!(guest.next(), None);
    program.write_all(b"\n").expect("room");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
}

#[test]
fn programs_that_say_nothing_make_room_for_others() {
    let mut guest = Guest::new();
    let silent: Vec<_> = (0..=MOST_NEWCOMERS).map(|_| guest.program(b"")).collect();
    // They are let in over two stretches, and the second is not forgotten.
    guest.vsock.arrived(&mut guest.rings);
    assert!(guest.is_stirred());
    guest.vsock.arrived(&mut guest.rings);
    assert!(!guest.is_stirred());
    assert!(is_closed(&silent[0]));
    assert!(silent[1..].iter().all(|program| !is_closed(program)));
    let _program = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
}

#[test]
fn a_guest_whose_share_of_files_is_small_has_fewer_sockets() {
    let bounds = Bounds::of_sockets(8);
    assert_eq!(bounds.sockets(), 8);
    let mut guest = Guest::with(bounds);
    let silent: Vec<_> = (0..=bounds.newcomers).map(|_| guest.program(b"")).collect();
    guest.vsock.arrived(&mut guest.rings);
    assert!(is_closed(&silent[0]) && !is_closed(&silent[1]));
    drop(silent);
    let listener = guest.listen();
    for port in 0..=bounds.connections as u32 {
        guest.send_header(guest.header(op::REQUEST, HOST_PORT, port));
        let expected = match (port as usize) < bounds.connections {
            true => op::RESPONSE,
            false => op::RESET,
        };
        assert_eq!(guest.next_op(), Some((expected, 0)));
        guest.vsock.exchange.check();
    }
    assert_eq!((0..9).filter(|_| listener.accept().is_ok()).count(), 7);
}

#[test]
fn a_symbolic_link_in_the_place_of_a_port_leads_the_guest_nowhere() {
    let mut guest = Guest::new();
    // Such as a socket in a directory that only this process may enter.
    let elsewhere = Place::new();
    let secret = UnixListener::bind(&elsewhere.0).expect("listens");
    secret.set_nonblocking(true).expect("does not wait");
    std::os::unix::fs::symlink(&elsewhere.0, guest.place.port(HOST_PORT)).expect("a link");
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    let nobody = secret.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

#[test]
fn without_a_driver_nobody_is_kept_waiting() {
    let mut guest = Guest::new();
    guest.rings.setup.queues.clear();
    guest.vsock.restarted(&guest.rings);
    let program = guest.program(b"CONNECT 52\n");
    guest.vsock.arrived(&mut guest.rings);
    assert!(is_closed(&program));
}

#[test]
fn the_guest_reaches_a_program_of_the_host() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    guest.send_data(b"to the host");
    assert_eq!(drain(&program).0, b"to the host");
    program.write_all(b"to the guest").expect("room");
    let (header, data) = guest.next().expect("data");
    assert_eq!((header.op, &data[..]), (op::DATA, &b"to the guest"[..]));
    assert_eq!((header.src_port, header.dst_port), (HOST_PORT, GUEST_PORT));
    assert_eq!(header.fwd_cnt, 11);
    assert_eq!(guest.next(), None);
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let mut guest = Guest::new();
    guest.send(op::REQUEST);
    let (reset, _) = guest.next().expect("a reset");
    assert_eq!(reset.op, op::RESET);
    assert_eq!((reset.src_port, reset.dst_port), (HOST_PORT, GUEST_PORT));
    // A socket that is left over is as good as none.
    drop(guest.listen());
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_packet_in_many_parts_arrives_whole() {
    let mut guest = Guest::new();
    let program = guest.connected();
    let header = Header {
        len: 100,
        ..guest.header(op::DATA, HOST_PORT, GUEST_PORT)
    };
    let mut bytes = header.bytes().to_vec();
    bytes.extend(0..100);
    guest.send_parts(&bytes, &[10, 34, 1, 60, 39]);
    assert_eq!(drain(&program).0, &bytes[HEADER..]);
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for_and_the_rest_later() {
    let mut guest = Guest::new();
    guest.buf_alloc = 1000;
    let mut program = guest.connected();
    let all: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
    program.write_all(&all).expect("room");
    let mut got = guest.next().expect("data").1;
    assert_eq!(got.len(), 1000);
    assert_eq!(guest.next_op(), Some((op::CREDIT_REQUEST, 0)));
    // It is asked once, and then left alone, by the thread too.
    assert_eq!(guest.next(), None);
    assert!(!guest.is_stirred());
    guest.send(op::CREDIT_UPDATE);
    assert_eq!(guest.next(), None);
    while got.len() < all.len() {
        guest.fwd_cnt = got.len() as u32;
        guest.send(op::CREDIT_UPDATE);
        match guest.received().or_else(|| guest.next()) {
            Some((header, data)) if header.op == op::DATA => got.extend(data),
            other => assert_eq!(other.expect("a packet").0.op, op::CREDIT_REQUEST),
        }
    }
    assert!(got == all);
}

#[test]
fn a_guest_without_buffers_gets_its_data_when_it_gives_some() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    // The buffer of before is used up by the first packet.
    assert_eq!(guest.next(), None);
    program.write_all(b"first").expect("room");
    guest.vsock.arrived(&mut guest.rings);
    program.write_all(b"second").expect("room");
    guest.vsock.arrived(&mut guest.rings);
    assert!(!guest.is_stirred());
    assert_eq!(guest.received().expect("data").1, b"first");
    guest.lend(4096);
    guest.vsock.serve(RECEIVE, &mut guest.rings);
    assert_eq!(guest.received().expect("data").1, b"second");
}

#[test]
fn buffers_that_are_too_short_or_nowhere_come_back_and_lose_nothing() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    program.write_all(b"data").expect("room");
    for (at, length, flags) in [
        (RECEIVED, HEADER as u32, WRITE),
        (RECEIVED, 0, WRITE),
        (1 << 40, 4096, WRITE),
        (RECEIVED, 4096, 0),
    ] {
        guest.receive.give(&guest.memory, &[(at, length, flags)]);
        guest.vsock.arrived(&mut guest.rings);
        assert_eq!(guest.receive.used(&guest.memory), Some(0));
    }
    guest.lend(HEADER as u32 + 1);
    guest.vsock.serve(RECEIVE, &mut guest.rings);
    assert_eq!(guest.received().expect("data").1, b"d");
    assert_eq!(guest.next().expect("data").1, b"ata");
}

#[test]
fn a_guest_that_keeps_to_its_credit_gets_everything_across() {
    let mut guest = Guest::new();
    let program = guest.connected();
    let all: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let (mut sent, mut taken, mut got) = (0, 0, Vec::new());
    while got.len() < all.len() {
        let room = BUFFER as usize - (sent - taken);
        let piece = room.min(all.len() - sent).min(50_000);
        if piece > 0 {
            guest.send_data(&all[sent..sent + piece]);
            sent += piece;
        } else {
            got.extend(drain(&program).0);
        }
        while let Some((header, _)) = guest.next() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            taken = header.fwd_cnt as usize;
        }
    }
    assert!(got == all);
}

#[test]
fn a_guest_that_asks_for_credit_is_told_what_has_been_taken() {
    let mut guest = Guest::new();
    let _program = guest.connected();
    guest.send_data(b"1234");
    assert_eq!(guest.next(), None);
    guest.send(op::CREDIT_REQUEST);
    let (update, _) = guest.next().expect("an answer");
    assert_eq!((update.op, update.fwd_cnt), (op::CREDIT_UPDATE, 4));
    assert_eq!(update.buf_alloc, BUFFER);
    assert_eq!(guest.next(), None);
}

#[test]
fn a_guest_that_sends_beyond_its_credit_loses_the_connection_and_no_more_is_kept() {
    let mut guest = Guest::new();
    let program = guest.connected();
    let piece = vec![1; BUFFER as usize];
    // What the Unix socket takes, what is kept, and one too many.
    let mut sent = 0;
    loop {
        guest.send_data(&piece);
        match guest.next_op() {
            Some((op::RESET, _)) => break,
            other => assert!(matches!(other, None | Some((op::CREDIT_UPDATE, _)))),
        }
        sent += piece.len();
    }
    let (got, closed) = drain(&program);
    assert!(closed && got.len() < sent && got.len() + BUFFER as usize >= sent);
}

#[test]
fn what_a_guest_says_of_its_buffer_cannot_be_wrong() {
    for (buf_alloc, fwd_cnt) in [(u32::MAX, u32::MAX), (0, 1 << 31), (1, 0), (u32::MAX, 5)] {
        let mut guest = Guest::new();
        guest.buf_alloc = buf_alloc;
        guest.fwd_cnt = fwd_cnt;
        let mut program = guest.connected();
        program.write_all(&[1; 3000]).expect("room");
        for _ in 0..4 {
            guest.next();
            guest.send(op::CREDIT_UPDATE);
        }
        assert!(!guest.is_stirred());
        assert!(!is_closed(&program));
    }
}

#[test]
fn packets_that_are_none_are_dropped() {
    let mut guest = Guest::new();
    let program = guest.connected();
    let header = guest.header(op::DATA, HOST_PORT, GUEST_PORT);
    for length in [0, 1, HEADER - 1] {
        guest.send_parts(&header.bytes()[..length], &[length]);
    }
    // Parts that only the device may write, that are nowhere, or longer than there are addresses.
    guest.send_chain(&[(SENT, HEADER as u32, WRITE)]);
    guest.send_chain(&[(1 << 40, HEADER as u32, 0)]);
    guest.send_chain(&[(u64::MAX - 5, HEADER as u32, 0)]);
    guest.send_chain(&[(SENT, u32::MAX, 0), (SENT, u32::MAX, 0)]);
    // From somebody else.
    for src_cid in [HOST, u64::from(CID) + 1, u64::from(CID) | 1 << 32] {
        guest.send_header(Header { src_cid, ..header });
    }
    assert_eq!(guest.next(), None);
    assert_eq!(drain(&program), (Vec::new(), false));
}

#[test]
fn packets_for_nobody_are_answered_by_a_reset_except_resets() {
    let mut guest = Guest::new();
    let _listener = guest.listen();
    let request = guest.header(op::REQUEST, HOST_PORT, GUEST_PORT);
    let wrong = [
        Header {
            dst_cid: 9,
            ..request
        },
        Header { kind: 2, ..request },
        Header {
            dst_port: u32::MAX,
            ..request
        },
        guest.header(op::DATA, HOST_PORT, GUEST_PORT),
        guest.header(op::RESPONSE, HOST_PORT, GUEST_PORT),
        guest.header(op::SHUTDOWN, HOST_PORT, GUEST_PORT),
        guest.header(op::CREDIT_REQUEST, HOST_PORT, GUEST_PORT),
        guest.header(0, HOST_PORT, GUEST_PORT),
        guest.header(99, HOST_PORT, GUEST_PORT),
    ];
    for header in wrong {
        guest.send_header(header);
        let (reset, _) = guest.next().expect("a reset");
        // From where the packet was to go, or the guest would not know what it is about.
        assert_eq!((reset.op, reset.kind), (op::RESET, header.kind));
        assert_eq!(reset.src_cid, header.dst_cid);
        assert_eq!(reset.src_port, header.dst_port);
        guest.send_header(Header {
            op: op::RESET,
            ..header
        });
        assert_eq!(guest.next(), None);
    }
}

#[test]
fn what_a_connection_does_not_expect_ends_it() {
    for op in [op::REQUEST, op::RESPONSE, 0, 8, u16::MAX] {
        let mut guest = Guest::new();
        let program = guest.connected();
        guest.send(op);
        assert_eq!(guest.next_op(), Some((op::RESET, 0)), "{op}");
        assert!(is_closed(&program), "{op}");
    }
}

#[test]
fn a_length_that_is_a_lie_ends_the_connection() {
    for len in [5, BUFFER, BUFFER + 1, u32::MAX] {
        let mut guest = Guest::new();
        let program = guest.connected();
        let header = guest.header(op::DATA, HOST_PORT, GUEST_PORT);
        let mut bytes = Header { len, ..header }.bytes().to_vec();
        bytes.extend(b"1234");
        guest.send_parts(&bytes, &[bytes.len()]);
        assert_eq!(guest.next_op(), Some((op::RESET, 0)), "{len}");
        assert_eq!(drain(&program), (Vec::new(), true), "{len}");
    }
}

#[test]
fn a_length_without_data_is_ignored_where_there_is_none() {
    let mut guest = Guest::new();
    let program = guest.connected();
    let header = guest.header(op::CREDIT_UPDATE, HOST_PORT, GUEST_PORT);
    guest.send_header(Header {
        len: u32::MAX,
        ..header
    });
    guest.send_data(b"");
    guest.send_data(b"fine");
    assert_eq!(drain(&program).0, b"fine");
}

#[test]
fn connections_have_a_bound_for_both_sides() {
    let mut guest = Guest::new();
    let listener = guest.listen();
    let programs: Vec<_> = (0..MOST_CONNECTIONS as u32)
        .map(|port| {
            guest.send_header(guest.header(op::REQUEST, HOST_PORT, port));
            assert_eq!(guest.next_op(), Some((op::RESPONSE, 0)));
            listener.accept().expect("a connection").0
        })
        .collect();
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    assert!(listener.accept().is_err());
    let program = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next(), None);
    assert!(is_closed(&program));

    // When one ends there is room again.
    drop(programs);
    guest.send_header(guest.header(op::RESET, HOST_PORT, 0));
    let _program = guest.program(b"CONNECT 52\n");
    let mut requests = 0;
    while let Some((op, _)) = guest.next_op() {
        requests += u32::from(op == op::REQUEST);
    }
    assert_eq!(requests, 1);
}

#[test]
fn resets_that_wait_have_a_bound() {
    let mut guest = Guest::new();
    for _ in 0..2 * MOST_RESETS {
        guest.send(op::DATA);
    }
    let mut resets = 0;
    while let Some(packet) = guest.next_op() {
        assert_eq!(packet, (op::RESET, 0));
        resets += 1;
    }
    assert_eq!(resets, MOST_RESETS);
}

#[test]
fn connections_that_come_and_go_unanswered_leave_nothing() {
    let mut guest = Guest::new();
    let listener = guest.listen();
    for _ in 0..1000 {
        guest.send(op::REQUEST);
        guest.send(op::RESET);
        drop(listener.accept());
    }
    assert!(!guest.vsock.exchange.has_news());
    assert_eq!(guest.next(), None);
}

#[test]
fn a_guest_that_sends_no_more_still_receives() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    guest.send_data(b"last");
    guest.shut_down(NO_SEND);
    assert_eq!(drain(&program), (b"last".to_vec(), true));
    program.write_all(b"answer").expect("room");
    assert_eq!(guest.next().expect("data").1, b"answer");
    // What it sends nevertheless is an error.
    guest.send_data(b"more");
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_guest_that_receives_no_more_still_sends() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    guest.shut_down(NO_RECEIVE);
    let error = program.write(b"x").expect_err("nobody reads");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest.send_data(b"still here");
    assert_eq!(drain(&program), (b"still here".to_vec(), false));
    assert_eq!(guest.next(), None);
}

#[test]
fn a_program_that_sends_no_more_still_receives() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    program.write_all(b"last").expect("room");
    program.shutdown(Shutdown::Write).expect("a socket");
    assert_eq!(guest.next().expect("data").1, b"last");
    assert_eq!(guest.next_op(), Some((op::SHUTDOWN, NO_SEND)));
    assert_eq!(guest.next(), None);
    guest.send_data(b"answer");
    guest.shut_down(NEITHER);
    assert_eq!(drain(&program), (b"answer".to_vec(), true));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_program_that_receives_no_more_still_sends() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    program.shutdown(Shutdown::Read).expect("a socket");
    // It turns out when somebody writes; what the guest sends after that is lost.
    for _ in 0..4 {
        guest.send_data(&[1; BUFFER as usize]);
        while let Some((op, flags)) = guest.next_op() {
            assert!(op == op::CREDIT_UPDATE || (op, flags) == (op::SHUTDOWN, NO_RECEIVE));
        }
    }
    program.write_all(b"still here").expect("room");
    assert_eq!(guest.next().expect("data").1, b"still here");
}

#[test]
fn a_program_that_goes_is_heard_to_its_end_and_the_guest_ends_the_connection() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    program.write_all(&[7; 6000]).expect("room");
    drop(program);
    let mut got = 0;
    while let Some((header, data)) = guest.next() {
        got += data.len();
        if header.op == op::SHUTDOWN {
            assert_eq!(header.flags, NEITHER);
            break;
        }
    }
    assert_eq!(got, 6000);
    guest.send(op::RESET);
    assert_eq!(guest.next(), None);
    guest.send(op::DATA);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
}

#[test]
fn a_guest_that_closes_need_not_wait_and_the_program_reads_all() {
    let mut guest = Guest::new();
    let program = guest.connected();
    // More than the Unix socket takes.
    let piece = vec![3; BUFFER as usize / 2];
    let (mut sent, mut taken) = (0, 0);
    while sent - taken <= BUFFER as usize / 2 {
        guest.send_data(&piece);
        sent += piece.len();
        while let Some((header, _)) = guest.next() {
            taken = header.fwd_cnt as usize;
        }
    }
    guest.shut_down(NEITHER);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    // The ports are taken until the program has read all.
    guest.send(op::REQUEST);
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    let (mut got, mut closed) = (0, false);
    while !closed {
        let (piece, end) = drain(&program);
        got += piece.len();
        closed = end;
        assert_eq!(guest.next(), None);
    }
    assert_eq!(got, sent);
    assert_eq!(guest.next(), None);
}

#[test]
fn after_a_reset_by_the_driver_all_connections_are_closed() {
    let mut guest = Guest::new();
    let open = guest.connected();
    let asked = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
    guest.send_header(guest.header(op::DATA, 9, 9));
    // The driver has started anew before the thread heard of the reset.
    guest.vsock.restarted(&guest.rings);
    assert!(is_closed(&open) && is_closed(&asked));
    assert_eq!(guest.next(), None);
    let _program = guest.program(b"CONNECT 52\n");
    assert_eq!(guest.next_op(), Some((op::REQUEST, 0)));
}

#[test]
fn whatever_both_sides_do_all_bounds_hold() {
    for seed in 1..=20u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % sides
        };
        let mut guest = Guest::new();
        let listener = guest.listen();
        let mut programs: Vec<UnixStream> = Vec::new();
        for _ in 0..3000 {
            let host = [HOST_PORT, HOST_PORT, 1 << 30, (1 << 30) + 1, 9][dice(5) as usize];
            match dice(12) {
                0 => programs.push(guest.program(b"CONNECT 1\n")),
                1 if !programs.is_empty() => {
                    programs.swap_remove(dice(programs.len() as u64) as usize);
                }
                2 if !programs.is_empty() => {
                    let one = dice(programs.len() as u64) as usize;
                    drain(&programs[one]);
                }
                3 if !programs.is_empty() => {
                    let one = dice(programs.len() as u64) as usize;
                    let _ = programs[one].write(&[1; 5000]);
                }
                4 if !programs.is_empty() => {
                    let one = dice(programs.len() as u64) as usize;
                    let how = [Shutdown::Read, Shutdown::Write][dice(2) as usize];
                    let _ = programs[one].shutdown(how);
                }
                5 => {
                    if let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true).expect("does not wait");
                        programs.push(stream);
                    }
                }
                6 | 7 => {
                    guest.next();
                }
                8 if dice(50) == 0 => guest.vsock.restarted(&guest.rings),
                _ => {
                    guest.fwd_cnt = [0, dice(100_000) as u32, u32::MAX][dice(3) as usize];
                    guest.buf_alloc = [0, 1 << 20, u32::MAX][dice(3) as usize];
                    let len = [0, 10, 30_000, BUFFER, u32::MAX][dice(5) as usize];
                    let header = Header {
                        len,
                        flags: dice(8) as u32,
                        ..guest.header(dice(9) as u16, host, dice(3) as u32)
                    };
                    let there = len.min(BUFFER + 10) as usize;
                    guest.send_parts(&header.bytes(), &[HEADER, there]);
                }
            }
            guest.vsock.exchange.check();
        }
        // Nobody can keep the thread awake.
        while guest.next().is_some() {}
        assert!(!guest.is_stirred());
    }
}

#[test]
fn each_piece_of_news_wakes_the_thread_once() {
    let mut guest = Guest::new();
    let mut program = guest.connected();
    guest.vsock.arrived(&mut guest.rings);
    // As the thread watches it.
    let epoll = Epoll::new().expect("an epoll");
    let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
    epoll
        .ctl(ControlOperation::Add, guest.source(), event)
        .expect("watched");
    let woken = || {
        let mut events = [EpollEvent::default()];
        epoll.wait(0, &mut events).expect("waits") == 1
    };
    assert!(!woken());
    for _ in 0..3 {
        program.write_all(b"news").expect("room");
        assert!(woken());
        guest.vsock.arrived(&mut guest.rings);
        assert!(!woken());
    }
    // That a program reads is no news unless something waits for room.
    guest.send_data(b"data");
    assert_eq!(drain(&program).0, b"data");
    assert!(!woken());
    while guest.next().is_some() {}
    // More than the Unix socket takes.
    let piece = vec![3; BUFFER as usize / 2];
    let (mut sent, mut taken) = (4, 4);
    while sent - taken <= BUFFER as usize / 2 {
        guest.send_data(&piece);
        sent += piece.len();
        while let Some((header, _)) = guest.next() {
            taken = header.fwd_cnt as usize;
        }
    }
    drain(&program);
    assert!(woken());
    guest.vsock.arrived(&mut guest.rings);
    assert!(!drain(&program).0.is_empty());
    guest.vsock.arrived(&mut guest.rings);
    assert!(!guest.is_stirred());
    let _other = guest.program(b"CONNECT 52\n");
    assert!(woken());
}

#[test]
fn the_socket_is_gone_at_the_end_and_only_ours() {
    let place = Place::new();
    let vsock = place.open().expect("opens");
    assert!(place.0.exists());
    drop(vsock);
    assert!(!place.0.exists());

    let vsock = place.open().expect("opens");
    std::fs::remove_file(&place.0).expect("removed");
    let _other = UnixListener::bind(&place.0).expect("listens");
    drop(vsock);
    assert!(place.0.exists());
}

#[test]
fn a_socket_that_is_left_over_makes_room_and_nothing_else_does() {
    let place = Place::new();
    drop(UnixListener::bind(&place.0).expect("listens"));
    let vsock = place.open().expect("a socket that nobody listens on");
    assert!(matches!(place.open(), Err(DeviceError::VsockInUse { .. })));
    drop(vsock);
    std::fs::write(&place.0, "notes").expect("a file");
    let error = place.open().err().expect("refused").to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&place.0).expect("a file"), b"notes");
}

#[test]
fn paths_that_cannot_be_are_refused() {
    let open = |path: &Path| {
        let config = VsockConfig {
            cid: CID,
            path: path.to_owned(),
        };
        Vsock::open(&config, Bounds::default())
            .err()
            .expect("refused")
    };
    assert!(matches!(
        open(Path::new("/nonexistent/vm.sock")),
        DeviceError::Vsock { .. }
    ));
    let long = Path::new("/tmp").join("x".repeat(100));
    assert!(matches!(open(&long), DeviceError::VsockTooLong { .. }));
}

#[test]
fn the_driver_is_told_its_address() {
    let place = Place::new();
    let vsock = place.open().expect("opens");
    assert_eq!(vsock.config(), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((vsock.kind(), vsock.queues()), (19, 3));
}

#[test]
fn a_stream_of_which_a_packet_did_not_reach_the_guest_is_over() {
    let mut guest = Guest::new();
    let program = guest.connected();
    let lost = Header {
        src_port: HOST_PORT,
        dst_port: GUEST_PORT,
        ..Header::default()
    };
    guest.vsock.exchange.lost(&lost);
    assert!(is_closed(&program));
    assert_eq!(guest.next_op(), Some((op::RESET, 0)));
    // Of a connection that is gone there is nothing more to say.
    guest.vsock.exchange.lost(&lost);
    assert_eq!(guest.next_op(), None);
}
