//! The serial number by which a guest recognises a disk: udev names links after it, and multipath takes two
//! disks with the same number for two paths to one disk.
//!
//! If the user gives no serial number, it is made of the numbers by which the host identifies the file. So two
//! files never have the same serial number, and a file keeps its own under whatever path it is opened. Its
//! 20 bytes have room for all possible numbers.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use baton_config::identity::Serial;
use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;

const LENGTH: usize = VIRTIO_BLK_ID_BYTES as usize;
/// A serial number; zeroes follow a shorter one.
pub(super) type DiskSerial = [u8; LENGTH];
/// The digits of base 32, for numbers that are too long in base 16.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The serial number that the user has given.
pub(super) fn given(serial: &Serial) -> DiskSerial {
    padded(serial.as_str())
}

/// The serial number of a file without a given one: of a regular file the numbers of its device and inode,
/// of a block device its own number.
pub(super) fn of_file(metadata: &Metadata) -> DiskSerial {
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
    // Linux's own number of a device has 32 bits, so that both numbers have 96 bits, and 20 digits have 100.
    let device = u128::from(libc::major(device)) << 20 | u128::from(libc::minor(device));
    let number = device << 64 | u128::from(inode);
    (0..LENGTH)
        .rev()
        .map(|digit| char::from(DIGITS[(number >> (5 * digit)) as usize % DIGITS.len()]))
        .collect()
}

fn padded(text: &str) -> DiskSerial {
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
    fn serials_of_different_files_differ_and_fit_for_all_numbers() {
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
