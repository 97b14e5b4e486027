//! Which requests the device carries out, and how many bytes it reports as written.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use super::super::super::mailbox::Mailbox;
use super::harness::{FAILED, Image, WRITE, request, send, with_driver};

#[test]
fn unknown_requests_are_reported_as_unsupported() {
    let image = Image::new(1);
    let mut block = with_driver(&image, false);
    let status = request(&mut block, 99, 0, &[], 0).0;
    assert_eq!(status, VIRTIO_BLK_S_UNSUPP as u8);
}

#[test]
fn a_request_with_more_data_than_its_kind_has_fails_as_a_whole() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let mailbox = Mailbox::new().expect("a mailbox");
    for (kind, middle) in [
        // Bytes that the device would not read.
        (VIRTIO_BLK_T_IN, &[(512, 0), (512, WRITE)][..]),
        (VIRTIO_BLK_T_GET_ID, &[(1, 0), (20, WRITE)]),
        (VIRTIO_BLK_T_FLUSH, &[(512, 0)]),
        // Room that the device would not fill.
        (VIRTIO_BLK_T_OUT, &[(512, 0), (512, WRITE)]),
        (VIRTIO_BLK_T_DISCARD, &[(16, 0), (1, WRITE)]),
        (VIRTIO_BLK_T_FLUSH, &[(1, WRITE)]),
    ] {
        let completion = send(&mut block, &mailbox, kind, 1, &[], middle);
        assert_eq!(completion.status, FAILED, "{kind} {middle:?}");
    }
    let file = std::fs::read(&image.0).expect("the file");
    assert_eq!((file[512], file[1023]), (1, 1));
}

#[test]
fn a_request_counts_as_written_only_what_was_written_without_a_gap() {
    let image = Image::new(4);
    let mut block = with_driver(&image, false);
    let mailbox = Mailbox::new().expect("a mailbox");
    for (kind, sector, middle, written) in [
        (VIRTIO_BLK_T_IN, 0, &[(1024, WRITE)][..], 1025),
        // The status follows room that was not written.
        (VIRTIO_BLK_T_IN, 4, &[(1024, WRITE)], 0),
        (VIRTIO_BLK_T_GET_ID, 0, &[(32, WRITE)], 20),
        (VIRTIO_BLK_T_GET_ID, 0, &[(20, WRITE)], 21),
        (VIRTIO_BLK_T_OUT, 0, &[(512, 0)], 1),
        (VIRTIO_BLK_T_OUT, 4, &[(512, 0)], 1),
    ] {
        let completion = send(&mut block, &mailbox, kind, sector, &[], middle);
        assert_eq!(completion.written, Some(written), "{kind} {sector}");
    }
}
