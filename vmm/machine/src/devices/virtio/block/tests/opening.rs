//! Opening a disk, and its serial number.

use baton_config::DiskConfig;
use baton_config::rate::RateLimit;
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_GET_ID;

use super::super::device::Block;
use super::harness::{Image, OK, request, with_driver};
use crate::devices::error::DeviceError;

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
fn files_that_are_not_disks_are_refused() {
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
fn two_disks_have_two_serials_and_one_disk_always_has_the_same() {
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
