//! Reads, writes and flushes.

use std::fs::File;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};

use super::super::super::device::VirtioDevice;
use super::super::super::features::Features;
use super::super::super::mailbox::{DriverSetup, Mailbox};
use super::super::super::test_support::{memory, queues_of};
use super::super::device::Block;
use super::super::disk::SECTOR;
use super::harness::{FAILED, Image, NO_STATUS, OK, request, request_under, with_driver};

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
    assert!(block.features().contains(VIRTIO_BLK_F_RO));
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
fn reads_of_a_file_that_has_shrunk_fail_and_show_nothing_of_earlier_requests() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let (status, _) = request(&mut block, VIRTIO_BLK_T_IN, 3, &[], 512);
    assert_eq!(status, OK);
    block.disk.file.set_len(SECTOR).expect("shrinks");
    let (status, data) = request(&mut block, VIRTIO_BLK_T_IN, 3, &[], 512);
    assert_eq!((status, data), (FAILED, vec![0; 512]));
}

/// A disk that accepts writes and cannot flush them: `fdatasync` fails for it.
fn without_flush(image: &Image) -> Block {
    let mut block = with_driver(image, false);
    block.disk.file = File::options()
        .write(true)
        .open("/dev/null")
        .expect("opens");
    block
}

#[test]
fn a_write_of_a_driver_that_cannot_flush_is_on_the_disk_when_it_is_done() {
    let image = Image::new(4);
    let mut block = without_flush(&image);
    let write = |block: &mut Block| request(block, VIRTIO_BLK_T_OUT, 1, &[9; 512], 512).0;
    assert_eq!(write(&mut block), OK);
    assert_eq!(request(&mut block, VIRTIO_BLK_T_FLUSH, 0, &[], 0).0, FAILED);
    block.accepted = block.accepted.without(VIRTIO_BLK_F_FLUSH);
    assert_eq!(write(&mut block), FAILED);
}

#[test]
fn only_features_accepted_since_the_last_reset_count() {
    let image = Image::new(4);
    let mut block = image.open(false).expect("opens");
    let memory = memory();
    let mut queues = queues_of(&memory, Vec::new());
    for features in [block.features(), Features::default()] {
        queues.setup.features = features;
        block.on_restart(&queues);
        assert_eq!(block.accepted, features);
    }
}

#[test]
fn a_request_that_the_driver_has_back_touches_neither_memory_nor_disk() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let mailbox = Mailbox::new().expect("a mailbox");
    mailbox.set_up(DriverSetup::default());
    let (status, data) = request_under(&mut block, &mailbox, VIRTIO_BLK_T_IN, 2, &[], 512);
    assert_eq!((status, data[0]), (NO_STATUS, 0));
    let write = request_under(&mut block, &mailbox, VIRTIO_BLK_T_OUT, 2, &[9; 512], 512);
    assert_eq!(write.0, NO_STATUS);
    assert_eq!(std::fs::read(&image.0).expect("the file")[1024], 2);
}
