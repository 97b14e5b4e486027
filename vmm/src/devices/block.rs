//! A disk: a raw image or a block device.
//!
//! Source: VIRTIO 1.2, 5.2.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::orders::Orders;
use super::{Chain, Device, DeviceError, Rings};
use crate::config::DiskConfig;

const SECTOR: u64 = 512;
/// Most sectors that one discard may name: 2 GiB.
const MAX_DISCARD: u32 = 1 << 22;
/// Data goes through a buffer of this size.
const BUFFER: usize = 64 << 10;
/// Offsets in the configuration space.
const CONFIG_MAX_DISCARD_SECTORS: usize = 36;
const CONFIG_LENGTH: usize = 60;

/// A disk.
pub(super) struct Block {
    file: File,
    sectors: u64,
    read_only: bool,
    buffer: Vec<u8>,
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

const BAD_REQUEST: Failure = Failure(VIRTIO_BLK_S_IOERR);

/// A request may be gigabytes long: one that nobody waits for any more ends between two pieces.
fn wanted(orders: &Orders) -> Result<(), Failure> {
    match orders.waiting_after_pause() {
        true => Err(BAD_REQUEST),
        false => Ok(()),
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
        let mut file = OpenOptions::new()
            .read(true)
            .write(!config.read_only)
            .open(path)
            .map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        let locked = match config.read_only {
            true => file.try_lock_shared(),
            false => file.try_lock(),
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DeviceError::DiskInUse { path: path.clone() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let sectors = file.seek(SeekFrom::End(0)).map_err(failed)? / SECTOR;
        if sectors == 0 {
            return Err(DeviceError::DiskTooShort { path: path.clone() });
        }
        Ok(Self {
            file,
            sectors,
            read_only: config.read_only,
            buffer: vec![0; BUFFER],
        })
    }

    /// Carries out one request; the number of bytes written for the driver. A request without a
    /// place for its status is no request.
    fn request(&mut self, memory: &GuestMemoryMmap, orders: &Orders, chain: Chain) -> Option<u32> {
        let mut reader = chain.clone().reader(memory).ok()?;
        let mut writer = chain.writer(memory).ok()?;
        let data = writer.available_bytes().checked_sub(1)?;
        let mut status = writer.split_at(data).ok()?;
        let outcome = match self.carry_out(&mut reader, &mut writer, orders) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Failure(status)) => status,
        };
        status.write_all(&[outcome as u8]).ok()?;
        u32::try_from(writer.bytes_written() + 1).ok()
    }

    fn carry_out(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        orders: &Orders,
    ) -> Result<(), Failure> {
        let mut header = [0; 16];
        reader.read_exact(&mut header)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            VIRTIO_BLK_T_IN => {
                let (mut at, mut left) = self.place(sector, writer.available_bytes())?;
                while left > 0 {
                    wanted(orders)?;
                    let piece = &mut self.buffer[..left.min(BUFFER)];
                    self.file.read_exact_at(piece, at)?;
                    writer.write_all(piece)?;
                    at += piece.len() as u64;
                    left -= piece.len();
                }
                Ok(())
            }
            VIRTIO_BLK_T_OUT => {
                self.writable()?;
                let (mut at, mut left) = self.place(sector, reader.available_bytes())?;
                while left > 0 {
                    wanted(orders)?;
                    let piece = &mut self.buffer[..left.min(BUFFER)];
                    reader.read_exact(piece)?;
                    self.file.write_all_at(piece, at)?;
                    at += piece.len() as u64;
                    left -= piece.len();
                }
                Ok(())
            }
            VIRTIO_BLK_T_FLUSH => Ok(self.file.sync_data()?),
            VIRTIO_BLK_T_DISCARD => {
                self.writable()?;
                self.discard(reader)
            }
            VIRTIO_BLK_T_GET_ID => {
                let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
                id[..5].copy_from_slice(b"baton");
                let room = writer.available_bytes().min(id.len());
                Ok(writer.write_all(&id[..room])?)
            }
            _ => Err(Failure(VIRTIO_BLK_S_UNSUPP)),
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

    /// One segment, as the configuration space says.
    fn discard(&self, reader: &mut Reader) -> Result<(), Failure> {
        let mut segment = [0; 16];
        reader.read_exact(&mut segment)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = segment;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        if flags != [0; 4] {
            return Err(Failure(VIRTIO_BLK_S_UNSUPP));
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
        let discard = [MAX_DISCARD, 1, 1];
        for (at, value) in (CONFIG_MAX_DISCARD_SECTORS..).step_by(4).zip(discard) {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        config
    }

    fn serve(&mut self, index: usize, rings: &mut Rings) {
        rings.each(index, |memory, orders, chain| {
            Some(self.request(memory, orders, chain).unwrap_or(0))
        });
    }
}

#[cfg(test)]
mod tests;
