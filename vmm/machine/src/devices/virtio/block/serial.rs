//! The serial number by which a guest knows a disk again: it names links of udev, and multipath takes two
//! disks with one number for two ways to one disk.
//!
//! Without one of the user's it is made of what the host knows the file by, so that two files never have
//! the same one and one file always has, however it is named. 20 bytes hold all of that exactly.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use baton_config::identity::Serial;
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

const LENGTH: usize = VIRTIO_BLK_ID_BYTES as usize;
/// Digits of a number that has too many in base 16.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// As the user wants it.
pub(super) fn given(serial: &Serial) -> [u8; LENGTH] {
    padded(serial.as_str())
}

/// Of a file: numbers of its device and inode; of a block device its own number.
pub(super) fn of_file(metadata: &Metadata) -> [u8; LENGTH] {
    padded(&match metadata.file_type().is_block_device() {
        true => of_block_device(metadata.rdev()),
        false => of_inode(metadata.dev(), metadata.ino()),
    })
}

fn of_block_device(number: u64) -> String {
    format!("blk-{number:x}")
}

fn of_inode(device: u64, inode: u64) -> String {
    let plain = format!("{device:x}-{inode:x}");
    if plain.len() <= LENGTH {
        return plain;
    }
    // Linux's own number of a device has 32 bits, so that both have 96, and 20 digits have 100.
    let device = u128::from(libc::major(device)) << 20 | u128::from(libc::minor(device));
    let number = device << 64 | u128::from(inode);
    (0..LENGTH)
        .rev()
        .map(|place| char::from(DIGITS[(number >> (5 * place)) as usize % DIGITS.len()]))
        .collect()
}

fn padded(text: &str) -> [u8; LENGTH] {
    let mut serial = [0; LENGTH];
    for (to, from) in serial.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    serial
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn serials_of_different_files_differ_and_fit_whatever_their_numbers() {
        let devices = [0, 1, 0x801, 0xfd01, libc::makedev(0xfff, 0xf_ffff)];
        let inodes = [0, 1, 12, 0x80_0000_0001, u64::MAX - 1, u64::MAX];
        let all: BTreeSet<_> = devices
            .iter()
            .flat_map(|device| inodes.map(|inode| of_inode(*device, inode)))
            .chain(devices.iter().map(|device| of_block_device(*device)))
            .collect();
        assert_eq!(all.len(), devices.len() * (inodes.len() + 1));
        assert!(all.iter().all(|serial| serial.len() <= LENGTH), "{all:?}");
        assert!(
            all.iter()
                .all(|serial| serial.bytes().all(|byte| byte.is_ascii_graphic()))
        );
    }

    #[test]
    fn a_serial_is_readable_where_it_can_be() {
        assert_eq!(of_inode(0xfd01, 0x2a), "fd01-2a");
        assert_eq!(of_block_device(0x810), "blk-810");
        assert_eq!(of_inode(libc::makedev(0xfff, 0xf_ffff), u64::MAX).len(), 20);
    }
}
