//! A disk of the host, and the ranges of it that a request may name.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use baton_config::DiskConfig;

use super::disk_lock;
use super::request_error::{RequestError, require};
use super::serial::{self, DiskSerial};
use crate::devices::error::DeviceError;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;

/// An open disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: File,
    sectors: u64,
    read_only: bool,
    serial: DiskSerial,
}

/// A range of whole sectors inside a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct SectorRange {
    /// Where the range starts, bytes.
    start: u64,
    /// Bytes.
    length: u64,
}

impl SectorRange {
    /// The range in pieces of at most `limit` bytes: where each starts, and its length.
    pub(super) fn pieces(self, limit: usize) -> impl Iterator<Item = (u64, usize)> {
        (0..self.length).step_by(limit).map(move |done| {
            let length = (self.length - done).min(limit as u64);
            (self.start + done, length as usize)
        })
    }
}

impl Disk {
    /// Opens and locks the disk.
    pub(super) fn open(config: &DiskConfig) -> Result<Self, DeviceError> {
        let path = &config.path;
        let failed = |source| DeviceError::Disk {
            path: path.clone(),
            source,
        };
        let mut file = disk_lock::open(path, config.read_only)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let (sectors, rest) = (bytes / SECTOR, bytes % SECTOR);
        if sectors == 0 {
            return Err(DeviceError::DiskTooShort { path: path.clone() });
        }
        if rest != 0 {
            baton_os::say!(
                "baton: the last {rest} bytes of disk {} are less than a sector of {SECTOR} bytes, so its \
                 guest does not see them",
                path.display()
            );
        }
        let serial = match &config.serial {
            Some(serial) => serial::given(serial),
            None => serial::of_file(&file.metadata().map_err(failed)?),
        };
        Ok(Self {
            file,
            sectors,
            read_only: config.read_only,
            serial,
        })
    }

    /// Length, sectors.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn serial(&self) -> &DiskSerial {
        &self.serial
    }

    /// The range of `length` bytes from `sector` on.
    ///
    /// # Errors
    /// If the range is not inside the disk, or is not of whole sectors.
    pub(super) fn range(&self, sector: u64, length: u64) -> Result<SectorRange, RequestError> {
        let end = sector.checked_add(length / SECTOR);
        require(length.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= self.sectors))?;
        Ok(SectorRange {
            start: sector * SECTOR,
            length,
        })
    }

    /// Fills `into` from byte `at` of the disk.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    /// Writes `bytes` at byte `at` of the disk. They may be in the host's cache when this returns.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Waits until everything that was written is on the disk.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Releases the storage of `range`, which reads as zeroes then.
    pub(super) fn discard(&self, range: SectorRange) -> io::Result<()> {
        // SAFETY: the file is open. The kernel checks the range, whose numbers fit the signed type because they
        // lie inside the disk.
        let result = unsafe {
            libc::fallocate(
                self.file.as_raw_fd(),
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                range.start as libc::off_t,
                range.length as libc::off_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
