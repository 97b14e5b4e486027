use std::sync::atomic::{AtomicU32, Ordering};

use baton_config::rate::RateLimit;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::mailbox::Orders;
use super::super::mailbox::Setup;
use super::super::queues::tests::{memory, rings};
use super::super::rate_limiter::tests::{Time, per_100ms};
use super::*;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const HEADER: u64 = 0x1000;
const DATA: u64 = 0x2000;
const STATUS: u64 = 0x8000;

/// A file of so many sectors, each full of its number, that is gone when dropped.
struct Image(std::path::PathBuf);

impl Image {
    fn new(sectors: u8) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("baton-disk-{}-{number}", std::process::id()));
        let bytes: Vec<u8> = (0..sectors).flat_map(|n| [n; SECTOR as usize]).collect();
        std::fs::write(&path, bytes).expect("a file");
        Self(path)
    }

    fn open(&self, read_only: bool) -> Result<Block, DeviceError> {
        Block::open(&DiskConfig {
            path: self.0.clone(),
            read_only,
            serial: None,
            limit: RateLimit::default(),
        })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const DESCRIPTION: u64 = 0x1_0000;

/// A disk as a driver sees it that has accepted all features.
fn with_driver(image: &Image, read_only: bool) -> Block {
    let mut block = image.open(read_only).expect("opens");
    block.accepted = block.features();
    block
}

/// Sends one request with `length` bytes of data; its status and the memory.
fn request(block: &mut Block, kind: u32, sector: u64, data: &[u8], length: u32) -> (u8, Vec<u8>) {
    let orders = Orders::new().expect("orders");
    request_under(block, &orders, kind, sector, data, length)
}

/// The same with `orders` for the device's thread.
fn request_under(
    block: &mut Block,
    orders: &Orders,
    kind: u32,
    sector: u64,
    data: &[u8],
    length: u32,
) -> (u8, Vec<u8>) {
    let flags = match kind {
        VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID => WRITE,
        _ => 0,
    };
    let answer = send(block, orders, kind, sector, data, &[(length, flags)]);
    (answer.status, answer.data)
}

/// What the driver finds after a request.
struct Answer {
    status: u8,
    data: Vec<u8>,
    /// As the device says; `None` if it was no request.
    written: Option<u32>,
}

/// Sends one request with parts of these lengths and flags between header and status, all at [`DATA`].
fn send(
    block: &mut Block,
    orders: &Orders,
    kind: u32,
    sector: u64,
    data: &[u8],
    middle: &[(u32, u16)],
) -> Answer {
    let memory = memory();
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    memory
        .write_slice(&header, GuestAddress(HEADER))
        .expect("header");
    memory.write_slice(data, GuestAddress(DATA)).expect("data");
    memory
        .write_obj(NO_STATUS, GuestAddress(STATUS))
        .expect("status");
    let middle = middle.iter().filter(|(length, _)| *length > 0);
    let parts: Vec<RawDescriptor> = [(HEADER, 16, 0)]
        .into_iter()
        .chain(
            middle
                .clone()
                .map(|(length, flags)| (DATA, *length, *flags)),
        )
        .chain([(STATUS, 1, WRITE)])
        .zip(1..)
        .map(|((at, length, flags), next)| {
            let more = if at == STATUS { 0 } else { NEXT };
            RawDescriptor::from(Descriptor::new(at, length, flags | more, next))
        })
        .collect();
    let queue = MockSplitQueue::create(&memory, GuestAddress(DESCRIPTION), 16);
    let chain = queue.build_desc_chain(&parts).expect("a chain");
    let mut request = Request::new(&memory, chain, orders, 0).expect("a request");
    let written = block.request(&mut request);
    let mut back = vec![
        0;
        middle
            .map(|(length, _)| *length as usize)
            .max()
            .unwrap_or(0)
    ];
    memory
        .read_slice(&mut back, GuestAddress(DATA))
        .expect("data");
    Answer {
        status: memory.read_obj(GuestAddress(STATUS)).expect("status"),
        data: back,
        written,
    }
}

/// What stands where the status goes before there is one.
const NO_STATUS: u8 = 0xff;
const OK: u8 = VIRTIO_BLK_S_OK as u8;
const FAILED: u8 = VIRTIO_BLK_S_IOERR as u8;

#[test]
fn what_is_written_is_read_back_and_reaches_the_file() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let (status, data) = request(&mut block, VIRTIO_BLK_T_IN, 2, &[], 1024);
    assert_eq!((status, data[0], data[1023]), (OK, 2, 3));
    assert_eq!(
        request(&mut block, VIRTIO_BLK_T_OUT, 1, &[9; 512], 512).0,
        OK
    );
    assert_eq!(request(&mut block, VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, OK);
    let file = std::fs::read(&image.0).expect("the file");
    assert_eq!((file[511], file[512], file[1023], file[1024]), (0, 9, 9, 2));
}

#[test]
fn requests_outside_the_disk_or_in_parts_of_sectors_fail() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    for (sector, length) in [
        (4, 512),
        (3, 1024),
        (u64::MAX, 512),
        (0, 100),
        (u64::MAX / 512, 512),
    ] {
        for kind in [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT] {
            assert_eq!(request(&mut block, kind, sector, &[], length).0, FAILED);
        }
    }
    assert_eq!(
        std::fs::metadata(&image.0).expect("the file").len(),
        4 * SECTOR
    );
}

#[test]
fn a_read_only_disk_does_not_change() {
    let image = Image::new(2);
    let mut block = with_driver(&image, true);
    assert_ne!(block.features() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(
        request(&mut block, VIRTIO_BLK_T_OUT, 0, &[9; 512], 512).0,
        FAILED
    );
    assert_eq!(
        request(&mut block, VIRTIO_BLK_T_DISCARD, 0, &[0; 16], 16).0,
        FAILED
    );
}

#[test]
fn discarded_sectors_read_as_zero_where_the_file_can_have_holes() {
    let image = Image::new(16);
    let mut block = with_driver(&image, false);
    let mut segment = [0; 16];
    segment[0] = 8;
    segment[8] = 8;
    let status = request(&mut block, VIRTIO_BLK_T_DISCARD, 0, &segment, 16).0;
    if status != VIRTIO_BLK_S_UNSUPP as u8 {
        assert_eq!(status, OK);
        let (_, data) = request(&mut block, VIRTIO_BLK_T_IN, 7, &[], 1024);
        assert_eq!((data[511], data[512]), (7, 0));
    }
    segment[8] = 9;
    assert_eq!(
        request(&mut block, VIRTIO_BLK_T_DISCARD, 0, &segment, 16).0,
        FAILED
    );
}

#[test]
fn unknown_requests_are_said_to_be_unsupported() {
    let image = Image::new(1);
    let mut block = with_driver(&image, false);
    let status = request(&mut block, 99, 0, &[], 0).0;
    assert_eq!(status, VIRTIO_BLK_S_UNSUPP as u8);
}

#[test]
fn two_writers_of_one_image_exclude_each_other_and_readers_do_not() {
    let image = Image::new(1);
    let first = image.open(true).expect("opens");
    let second = image.open(true).expect("readers share");
    assert!(matches!(
        image.open(false),
        Err(DeviceError::DiskInUse { .. })
    ));
    drop((first, second));
    let _writer = image.open(false).expect("opens");
    assert!(matches!(
        image.open(true),
        Err(DeviceError::DiskInUse { .. })
    ));
}

#[test]
fn files_that_are_no_disks_are_refused() {
    let image = Image::new(0);
    assert!(matches!(
        image.open(false),
        Err(DeviceError::DiskTooShort { .. })
    ));
    let missing = DiskConfig {
        path: "/nonexistent/disk".into(),
        read_only: false,
        serial: None,
        limit: RateLimit::default(),
    };
    assert!(matches!(
        Block::open(&missing),
        Err(DeviceError::Disk { .. })
    ));
}

#[test]
fn a_request_that_nobody_waits_for_any_more_touches_neither_memory_nor_disk() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let orders = Orders::new().expect("orders");
    orders.set_up(Setup::default());
    let (status, data) = request_under(&mut block, &orders, VIRTIO_BLK_T_IN, 2, &[], 512);
    assert_eq!((status, data[0]), (NO_STATUS, 0));
    let write = request_under(&mut block, &orders, VIRTIO_BLK_T_OUT, 2, &[9; 512], 512);
    assert_eq!(write.0, NO_STATUS);
    assert_eq!(std::fs::read(&image.0).expect("the file")[1024], 2);
}

/// A disk that takes all that is written, and cannot keep it: there is no `fdatasync` for it.
fn forgetful(image: &Image) -> Block {
    let mut block = with_driver(image, false);
    block.file = File::options()
        .write(true)
        .open("/dev/null")
        .expect("opens");
    block
}

#[test]
fn what_a_driver_writes_that_cannot_flush_is_on_the_disk_when_it_is_done() {
    let image = Image::new(4);
    let mut block = forgetful(&image);
    let write = |block: &mut Block| request(block, VIRTIO_BLK_T_OUT, 1, &[9; 512], 512).0;
    assert_eq!(write(&mut block), OK);
    assert_eq!(request(&mut block, VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, FAILED);
    block.accepted &= !(1 << VIRTIO_BLK_F_FLUSH);
    assert_eq!(write(&mut block), FAILED);
}

#[test]
fn a_device_goes_by_what_the_driver_has_accepted_since_its_last_reset() {
    let image = Image::new(4);
    let mut block = image.open(false).expect("opens");
    let memory = memory();
    let mut rings = rings(&memory, Vec::new());
    for features in [block.features(), 0] {
        rings.setup.features = features;
        block.restarted(&rings);
        assert_eq!(block.accepted, features);
    }
}

/// A discard of so many sectors from there.
fn segment(sector: u64, count: u32) -> Vec<u8> {
    let mut segment = sector.to_le_bytes().to_vec();
    segment.extend_from_slice(&count.to_le_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment
}

#[test]
fn a_discard_beyond_the_limits_of_the_configuration_space_is_refused_and_discards_nothing() {
    let image = Image::new(16);
    let mut block = with_driver(&image, false);
    let two = [segment(0, 8), segment(8, 8)].concat();
    let unsupported = VIRTIO_BLK_S_UNSUPP as u8;
    for (data, expected) in [
        (&two[..], unsupported),
        (&two[..24], unsupported),
        (&two[..17], unsupported),
        (&two[..15], FAILED),
        (&two[..0], FAILED),
        (&segment(0, MAX_DISCARD + 1)[..], FAILED),
        (&segment(0, 17)[..], FAILED),
        (&segment(u64::MAX, 1)[..], FAILED),
    ] {
        let length = data.len() as u32;
        let status = request(&mut block, VIRTIO_BLK_T_DISCARD, 0, data, length).0;
        assert_eq!(status, expected, "{data:?}");
    }
    let before: Vec<u8> = (0..16).flat_map(|n| [n; SECTOR as usize]).collect();
    assert_eq!(std::fs::read(&image.0).expect("the file"), before);
}

#[test]
fn a_discard_that_was_not_agreed_on_is_not_carried_out() {
    let image = Image::new(16);
    let mut block = image.open(false).expect("opens");
    let status = request(&mut block, VIRTIO_BLK_T_DISCARD, 0, &segment(8, 8), 16).0;
    assert_eq!(status, VIRTIO_BLK_S_UNSUPP as u8);
    assert_eq!(std::fs::read(&image.0).expect("the file")[8 * 512], 8);
}

#[test]
fn a_request_with_more_than_its_kind_takes_is_refused_as_a_whole() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let orders = Orders::new().expect("orders");
    for (kind, middle) in [
        // Bytes for the device that it would not read.
        (VIRTIO_BLK_T_IN, &[(512, 0), (512, WRITE)][..]),
        (VIRTIO_BLK_T_GET_ID, &[(1, 0), (20, WRITE)]),
        (VIRTIO_BLK_T_FLUSH, &[(512, 0)]),
        // Room that it would not fill.
        (VIRTIO_BLK_T_OUT, &[(512, 0), (512, WRITE)]),
        (VIRTIO_BLK_T_DISCARD, &[(16, 0), (1, WRITE)]),
        (VIRTIO_BLK_T_FLUSH, &[(1, WRITE)]),
    ] {
        let answer = send(&mut block, &orders, kind, 1, &[], middle);
        assert_eq!(answer.status, FAILED, "{kind} {middle:?}");
    }
    let file = std::fs::read(&image.0).expect("the file");
    assert_eq!((file[512], file[1023]), (1, 1));
}

#[test]
fn a_request_counts_as_written_only_what_was_written_without_a_gap() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let orders = Orders::new().expect("orders");
    for (kind, sector, middle, written) in [
        (VIRTIO_BLK_T_IN, 0, &[(1024, WRITE)][..], 1025),
        // The status follows room that was left as it was.
        (VIRTIO_BLK_T_IN, 4, &[(1024, WRITE)], 0),
        (VIRTIO_BLK_T_GET_ID, 0, &[(32, WRITE)], 20),
        (VIRTIO_BLK_T_GET_ID, 0, &[(20, WRITE)], 21),
        (VIRTIO_BLK_T_OUT, 0, &[(512, 0)], 1),
        (VIRTIO_BLK_T_OUT, 4, &[(512, 0)], 1),
    ] {
        let answer = send(&mut block, &orders, kind, sector, &[], middle);
        assert_eq!(answer.written, Some(written), "{kind} {sector}");
    }
}

#[test]
fn disks_have_serials_of_their_own_and_one_disk_has_one() {
    let (one, two) = (Image::new(1), Image::new(1));
    let serial = |image: &Image| {
        let mut block = with_driver(image, true);
        let (status, id) = request(&mut block, VIRTIO_BLK_T_GET_ID, 0, &[], 20);
        assert_eq!(status, OK);
        id
    };
    assert_ne!(serial(&one), serial(&two));
    assert_eq!(serial(&one), serial(&one));
    assert!(serial(&one)[0].is_ascii_graphic());
}

#[test]
fn the_users_serial_is_what_the_guest_reads() {
    let image = Image::new(1);
    let config = format!("{},serial=root-1", image.0.display());
    let mut block = Block::open(&config.parse().expect("a disk")).expect("opens");
    let (_, id) = request(&mut block, VIRTIO_BLK_T_GET_ID, 0, &[], 20);
    assert_eq!(&id, b"root-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_file_that_has_shrunk_fails_reads_and_shows_nothing_of_requests_before() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let (status, _) = request(&mut block, VIRTIO_BLK_T_IN, 3, &[], 512);
    assert_eq!(status, OK);
    block.file.set_len(SECTOR).expect("shrinks");
    let (status, data) = request(&mut block, VIRTIO_BLK_T_IN, 3, &[], 512);
    assert_eq!((status, data), (FAILED, vec![0; 512]));
}

const DESCRIPTORS: u16 = 3;

/// A queue of `count` reads of sector 0, each `length` bytes.
fn reads(memory: &GuestMemoryMmap, count: u16, length: u32) -> MockSplitQueue<'_, GuestMemoryMmap> {
    memory
        .write_slice(&[0; 16], GuestAddress(HEADER))
        .expect("a header: read from sector 0");
    let mock = MockSplitQueue::new(memory, 32);
    for at in (0..count).map(|n| n * DESCRIPTORS) {
        let parts = [
            Descriptor::new(HEADER, 16, NEXT, at + 1),
            Descriptor::new(DATA, length, NEXT | WRITE, at + 2),
            Descriptor::new(STATUS, 1, WRITE, 0),
        ];
        mock.add_desc_chains(&parts.map(RawDescriptor::from), at)
            .expect("a request");
    }
    mock
}

fn done(mock: &MockSplitQueue<GuestMemoryMmap>) -> u16 {
    u16::from_le(mock.used().idx().load())
}

#[test]
fn requests_without_tokens_stay_in_the_queue_until_there_are_some() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let time = Time::default();
    block.throttle = time.throttle(RateLimit {
        bandwidth: per_100ms(1024),
        ops: per_100ms(100),
    });
    let memory = memory();
    let mock = reads(&memory, 5, 512);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    for (ms, requests) in [(0, 2), (0, 2), (49, 2), (1, 3), (1000, 5)] {
        time.pass_ms(ms);
        block.serve(0, &mut rings);
        assert_eq!(done(&mock), requests, "{ms} ms later");
    }
    assert_eq!(
        memory.read_obj::<u8>(GuestAddress(STATUS)).expect("status"),
        OK
    );
}

#[test]
fn operations_are_counted_whatever_their_size() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let time = Time::default();
    block.throttle = time.throttle(RateLimit {
        bandwidth: None,
        ops: per_100ms(2),
    });
    let memory = memory();
    let mock = reads(&memory, 5, 2048);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    for (ms, requests) in [(0, 2), (50, 3), (100, 5)] {
        time.pass_ms(ms);
        block.serve(0, &mut rings);
        assert_eq!(done(&mock), requests, "{ms} ms later");
    }
}

#[test]
fn a_request_that_is_larger_than_the_bucket_is_served_and_the_next_one_waits_for_its_debt() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let time = Time::default();
    block.throttle = time.throttle(RateLimit {
        bandwidth: per_100ms(1024),
        ops: None,
    });
    let memory = memory();
    let mock = reads(&memory, 2, 2048);
    let mut rings = rings(&memory, vec![mock.create_queue().expect("a queue")]);
    for (ms, requests) in [(0, 1), (199, 1), (1, 2)] {
        time.pass_ms(ms);
        block.serve(0, &mut rings);
        assert_eq!(done(&mock), requests, "{ms} ms later");
    }
}
