//! A disk: a raw image or a block device (`claim.rs` opens it, `serial.rs` names it).
//!
//! What a driver may ask for depends on what it has accepted: one that does not know how to flush is
//! told that a write is done when it is on the disk.
//!
//! A request is carried out as a whole or fails. What is more than its kind takes, in either direction,
//! makes it another request than the driver believes, and fails too.
//!
//! Source: VIRTIO 1.2, 5.2.

mod disk_lock;
mod serial;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use baton_config::DiskConfig;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::rate_limiter::Throttle;
use super::request::NoMemory;
use super::{Device, DeviceError, Request, Rings};

const SECTOR: u64 = 512;
/// Bytes of a request's header.
const HEADER: usize = 16;
/// Bytes of its status.
const STATUS: usize = 1;
/// Most sectors that one discard may name: 2 GiB.
const MAX_DISCARD: u32 = 1 << 22;
/// Data goes through a buffer of this size.
const BUFFER: usize = 64 << 10;
/// Offsets in the configuration space.
const CONFIG_MAX_DISCARD_SECTORS: usize = 36;
const CONFIG_LENGTH: usize = 60;
/// Bytes of a discard's segment.
const SEGMENT: usize = 16;
/// Most segments of a discard.
const MAX_SEGMENTS: usize = 1;

/// A disk.
pub(super) struct Block {
    file: File,
    sectors: u64,
    read_only: bool,
    serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    /// What the driver has accepted of [`Device::features`].
    accepted: u64,
    buffer: Vec<u8>,
    throttle: Throttle,
}

/// What went wrong with a request, as the driver reads it.
struct Failure(u32);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        })
    }
}

impl From<NoMemory> for Failure {
    fn from(_: NoMemory) -> Self {
        BAD_REQUEST
    }
}

const BAD_REQUEST: Failure = Failure(VIRTIO_BLK_S_IOERR);
const UNSUPPORTED: Failure = Failure(VIRTIO_BLK_S_UNSUPP);

/// A request may be gigabytes long: one that nobody waits for any more ends between two pieces.
fn wanted(request: &Request) -> Result<(), Failure> {
    match request.goes_on() {
        true => Ok(()),
        false => Err(BAD_REQUEST),
    }
}

/// A rule that the request keeps, or it fails.
fn require(kept: bool) -> Result<(), Failure> {
    match kept {
        true => Ok(()),
        false => Err(BAD_REQUEST),
    }
}

impl Block {
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
            accepted: 0,
            buffer: vec![0; BUFFER],
            throttle: Throttle::new(&config.limit)?,
        })
    }

    fn has_accepted(&self, feature: u32) -> bool {
        self.accepted >> feature & 1 == 1
    }

    /// Carries out one request; the number of bytes written for the driver. A request without a
    /// place for its status is no request.
    fn request(&mut self, request: &mut Request) -> Option<u32> {
        if !request.reserve_tail(STATUS) {
            return None;
        }
        let outcome = match self.carry_out(request) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Failure(status)) => status,
        };
        request.write_tail(&[outcome as u8]).ok()?;
        // They are counted from the begin of the room, and may have no gap.
        let status = if request.writable() == 0 { STATUS } else { 0 };
        u32::try_from(request.written() + status).ok()
    }

    fn carry_out(&mut self, request: &mut Request) -> Result<(), Failure> {
        let mut header = [0; HEADER];
        request.read(&mut header)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        // Bytes of data, beside header and status.
        let (brings, wants) = (request.readable(), request.writable());
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            VIRTIO_BLK_T_IN => {
                require(brings == 0)?;
                let (mut at, mut left) = self.place(sector, wants)?;
                while left > 0 {
                    wanted(request)?;
                    let piece = &mut self.buffer[..left.min(BUFFER)];
                    self.file.read_exact_at(piece, at)?;
                    request.write(piece)?;
                    at += piece.len() as u64;
                    left -= piece.len();
                }
                Ok(())
            }
            VIRTIO_BLK_T_OUT => {
                require(wants == 0)?;
                self.writable()?;
                let (mut at, mut left) = self.place(sector, brings)?;
                while left > 0 {
                    wanted(request)?;
                    let piece = &mut self.buffer[..left.min(BUFFER)];
                    request.read(piece)?;
                    self.file.write_all_at(piece, at)?;
                    at += piece.len() as u64;
                    left -= piece.len();
                }
                // Who cannot flush counts on what is written (5.2.6.2).
                if !self.has_accepted(VIRTIO_BLK_F_FLUSH) {
                    self.file.sync_data()?;
                }
                Ok(())
            }
            VIRTIO_BLK_T_FLUSH => {
                require(brings == 0 && wants == 0)?;
                Ok(self.file.sync_data()?)
            }
            VIRTIO_BLK_T_DISCARD => {
                require(wants == 0)?;
                self.writable()?;
                self.discard(request)
            }
            VIRTIO_BLK_T_GET_ID => {
                require(brings == 0)?;
                let room = wants.min(self.serial.len());
                Ok(request.write(&self.serial[..room])?)
            }
            _ => Err(UNSUPPORTED),
        }
    }

    fn writable(&self) -> Result<(), Failure> {
        match self.read_only {
            true => Err(BAD_REQUEST),
            false => Ok(()),
        }
    }

    /// Position and length in bytes, if whole sectors inside the disk.
    fn place(&self, sector: u64, length: usize) -> Result<(u64, usize), Failure> {
        let bytes = length as u64;
        let inside = bytes.is_multiple_of(SECTOR)
            && sector
                .checked_add(bytes / SECTOR)
                .is_some_and(|end| end <= self.sectors);
        match inside {
            true => Ok((sector * SECTOR, length)),
            false => Err(BAD_REQUEST),
        }
    }

    /// As many segments as the configuration space says, and only for a driver that has read that.
    fn discard(&self, request: &mut Request) -> Result<(), Failure> {
        let length = request.readable();
        if !self.has_accepted(VIRTIO_BLK_F_DISCARD) || length > MAX_SEGMENTS * SEGMENT {
            return Err(UNSUPPORTED);
        }
        let mut segment = [0; SEGMENT];
        request.read(&mut segment)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = segment;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        if flags != [0; 4] {
            return Err(UNSUPPORTED);
        }
        if count > MAX_DISCARD {
            return Err(BAD_REQUEST);
        }
        let (at, length) = self.place(sector, count as usize * SECTOR as usize)?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the file is open, and the kernel checks the range, which fits a signed number:
        // it lies inside the disk.
        let result = unsafe {
            libc::fallocate(
                self.file.as_raw_fd(),
                libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                at as libc::off_t,
                length as libc::off_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().into()),
        }
    }
}

/// Bytes that a request moves: all but header and status.
fn data_bytes(request: &Request) -> u64 {
    let brings = request.readable().saturating_sub(HEADER);
    let wants = request.writable().saturating_sub(STATUS);
    brings.saturating_add(wants) as u64
}

impl Device for Block {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        match self.read_only {
            true => 1 << VIRTIO_BLK_F_RO,
            false => 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD,
        }
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; CONFIG_LENGTH];
        config[..8].copy_from_slice(&self.sectors.to_le_bytes());
        // Sectors in one discard, segments in one discard, alignment.
        let discard = [MAX_DISCARD, MAX_SEGMENTS as u32, 1];
        for (at, value) in (CONFIG_MAX_DISCARD_SECTORS..).step_by(4).zip(discard) {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        config
    }

    fn calls(&self, _: usize) -> Option<RawFd> {
        self.throttle.calls()
    }

    fn serve(&mut self, index: usize, rings: &mut Rings) {
        rings.each(index, |request| {
            if !self.throttle.admits(|| data_bytes(request)) {
                return None;
            }
            Some(self.request(request).unwrap_or(0))
        });
    }

    fn restarted(&mut self, rings: &Rings) {
        self.accepted = rings.setup.features;
    }
}

#[cfg(test)]
mod tests;
