//! Discards.

use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_IN};

use super::super::device::MAX_DISCARD_SECTORS;
use super::super::disk::SECTOR;
use super::harness::{FAILED, Image, OK, request, with_driver};

/// The segment of a discard of `count` sectors from `sector` on.
fn segment(sector: u64, count: u32) -> Vec<u8> {
    let mut segment = sector.to_le_bytes().to_vec();
    segment.extend_from_slice(&count.to_le_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment
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
        (&segment(0, MAX_DISCARD_SECTORS + 1)[..], FAILED),
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
fn a_discard_that_was_not_negotiated_is_not_carried_out() {
    let image = Image::new(16);
    let mut block = image.open(false).expect("opens");
    let status = request(&mut block, VIRTIO_BLK_T_DISCARD, 0, &segment(8, 8), 16).0;
    assert_eq!(status, VIRTIO_BLK_S_UNSUPP as u8);
    assert_eq!(std::fs::read(&image.0).expect("the file")[8 * 512], 8);
}
