//! A disk as a virtio device: carries out the driver's requests.
//!
//! A driver may use only what it has accepted. To a driver that has not accepted flushes, a write is
//! reported as done when the data is on the disk.
//!
//! A request is carried out as a whole or fails. A request with more data than its kind has, in either
//! direction, is not the request that the driver believes it to be, and fails too.
//!
//! Source: VIRTIO 1.2, 5.2.

use std::os::fd::RawFd;

use baton_config::DiskConfig;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::super::device::VirtioDevice;
use super::super::features::Features;
use super::super::queues::Queues;
use super::super::rate_limiter::RateLimiter;
use super::super::request::Request;
use super::disk::{Disk, SECTOR};
use super::request_error::{RequestError, require};
use crate::devices::error::DeviceError;

/// Bytes of a request's header.
const HEADER: usize = 16;
/// Bytes of a request's status.
const STATUS: usize = 1;
/// Most sectors of one discard: 2 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// Data is copied through a buffer of this size, bytes.
const BUFFER: usize = 64 << 10;
/// Offset of `max_discard_sectors` in the configuration space.
const CONFIG_MAX_DISCARD_SECTORS: usize = 36;
/// Bytes of the configuration space.
const CONFIG_LENGTH: usize = 60;
/// Bytes of a segment, one range of a discard.
const SEGMENT: usize = 16;
/// Most segments of a discard.
const MAX_SEGMENTS: usize = 1;

/// A disk of one guest.
pub(crate) struct Block {
    pub(super) disk: Disk,
    /// What the driver has accepted of [`VirtioDevice::features`].
    pub(super) accepted: Features,
    buffer: Vec<u8>,
    pub(super) limiter: RateLimiter,
}

impl Block {
    /// Opens and locks the disk.
    pub(crate) fn open(config: &DiskConfig) -> Result<Self, DeviceError> {
        Ok(Self {
            disk: Disk::open(config)?,
            accepted: Features::default(),
            buffer: vec![0; BUFFER],
            limiter: RateLimiter::new(&config.limit)?,
        })
    }

    /// Carries out one request and writes its status. Returns the number of bytes written for the driver;
    /// `None` if the request has no room for a status, or belongs to the driver again.
    pub(super) fn request(&mut self, request: &mut Request) -> Option<u32> {
        if !request.reserve_tail(STATUS) {
            return None;
        }
        let status = match self.carry_out(request) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) => error.status(),
        };
        request.write_tail(&[status as u8]).ok()?;
        // Only bytes from the start of the room without a gap count, so the status counts only if the room
        // before it is full.
        let status = if request.writable() == 0 { STATUS } else { 0 };
        u32::try_from(request.written() + status).ok()
    }

    fn carry_out(&mut self, request: &mut Request) -> Result<(), RequestError> {
        let mut header = [0; HEADER];
        request.read(&mut header)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            VIRTIO_BLK_T_IN => self.read(request, sector),
            VIRTIO_BLK_T_OUT => self.write(request, sector),
            VIRTIO_BLK_T_FLUSH => self.flush(request),
            VIRTIO_BLK_T_DISCARD => self.discard(request),
            VIRTIO_BLK_T_GET_ID => self.get_id(request),
            _ => Err(RequestError::Unsupported),
        }
    }

    fn read(&mut self, request: &mut Request, sector: u64) -> Result<(), RequestError> {
        require(request.readable() == 0)?;
        let range = self.disk.range(sector, request.writable() as u64)?;
        for (at, length) in range.pieces(BUFFER) {
            require(request.may_continue())?;
            let piece = &mut self.buffer[..length];
            self.disk.read(piece, at)?;
            request.write(piece)?;
        }
        Ok(())
    }

    fn write(&mut self, request: &mut Request, sector: u64) -> Result<(), RequestError> {
        require(request.writable() == 0 && !self.disk.is_read_only())?;
        let range = self.disk.range(sector, request.readable() as u64)?;
        for (at, length) in range.pieces(BUFFER) {
            require(request.may_continue())?;
            let piece = &mut self.buffer[..length];
            request.read(piece)?;
            self.disk.write(piece, at)?;
        }
        // A driver that cannot flush relies on each write (5.2.6.2).
        if !self.accepted.contains(VIRTIO_BLK_F_FLUSH) {
            self.disk.flush()?;
        }
        Ok(())
    }

    fn flush(&self, request: &Request) -> Result<(), RequestError> {
        require(request.readable() == 0 && request.writable() == 0)?;
        Ok(self.disk.flush()?)
    }

    /// Carries out a discard with as many segments as the configuration space allows, and only for a driver
    /// that has accepted discards, so that it has read that limit.
    fn discard(&self, request: &mut Request) -> Result<(), RequestError> {
        require(request.writable() == 0 && !self.disk.is_read_only())?;
        let length = request.readable();
        if !self.accepted.contains(VIRTIO_BLK_F_DISCARD) || length > MAX_SEGMENTS * SEGMENT {
            return Err(RequestError::Unsupported);
        }
        let mut segment = [0; SEGMENT];
        request.read(&mut segment)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = segment;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        if flags != [0; 4] {
            return Err(RequestError::Unsupported);
        }
        require(sectors <= MAX_DISCARD_SECTORS)?;
        let range = self.disk.range(sector, u64::from(sectors) * SECTOR)?;
        match sectors {
            0 => Ok(()),
            _ => Ok(self.disk.discard(range)?),
        }
    }

    fn get_id(&self, request: &mut Request) -> Result<(), RequestError> {
        require(request.readable() == 0)?;
        let serial = self.disk.serial();
        let length = request.writable().min(serial.len());
        Ok(request.write(&serial[..length])?)
    }
}

/// Bytes of data in a request that has not been read yet: all but its header and status.
fn data_bytes(request: &Request) -> u64 {
    let from_driver = request.readable().saturating_sub(HEADER);
    let for_driver = request.writable().saturating_sub(STATUS);
    from_driver.saturating_add(for_driver) as u64
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> Features {
        match self.disk.is_read_only() {
            true => Features::of(&[VIRTIO_BLK_F_RO]),
            false => Features::of(&[VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_DISCARD]),
        }
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn config_space(&self) -> Vec<u8> {
        let mut config = vec![0; CONFIG_LENGTH];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        // Sectors of one discard, segments of one discard, alignment.
        let discard = [MAX_DISCARD_SECTORS, MAX_SEGMENTS as u32, 1];
        for (at, value) in (CONFIG_MAX_DISCARD_SECTORS..).step_by(4).zip(discard) {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        config
    }

    fn rate_limit_timer(&self, _: usize) -> Option<RawFd> {
        self.limiter.timer()
    }

    fn process_queue(&mut self, index: usize, queues: &mut Queues) {
        queues.for_each_request(index, |request| {
            if !self.limiter.admit(|| data_bytes(request)) {
                return None;
            }
            Some(self.request(request).unwrap_or(0))
        });
    }

    fn on_restart(&mut self, queues: &Queues) {
        self.accepted = queues.setup.features;
    }
}
