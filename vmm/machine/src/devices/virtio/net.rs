//! A network interface on a tap of the host.
//!
//! Source: VIRTIO 1.2, 5.1; Linux Documentation/networking/tuntap.rst.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use baton_config::NetConfig;
use baton_os::nospec;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;

use super::device::VirtioDevice;
use super::features::Features;
use super::queues::Queues;
use super::rate_limiter::RateLimiter;
use crate::devices::error::DeviceError;

/// Index of the queue with frames for the guest.
const RX_QUEUE: usize = 0;
/// Index of the queue with frames of the guest.
const TX_QUEUE: usize = 1;
/// Bytes of `struct virtio_net_hdr_v1`, in front of each frame.
const HEADER: usize = 12;
/// Offset of its last field, the number of buffers of a received frame, which is always one.
const HEADER_BUFFERS: usize = 10;
/// Most bytes of a frame with its header: an MTU of 64 KiB.
const MAX_FRAME: usize = HEADER + 65_550;

/// A network interface of one guest.
pub(crate) struct Net {
    tap: File,
    mac: Option<[u8; 6]>,
    /// The frame for the guest that is being handled.
    rx_frame: Vec<u8>,
    /// The frame of the guest that is being handled.
    tx_frame: Vec<u8>,
    rx_limiter: RateLimiter,
    tx_limiter: RateLimiter,
}

impl Net {
    /// Attaches to the tap that `config` names.
    pub(crate) fn open(config: &NetConfig) -> Result<Self, DeviceError> {
        let tap = &config.tap;
        if !Path::new("/sys/class/net").join(tap).exists() {
            return Err(DeviceError::TapMissing { tap: tap.clone() });
        }
        let file = attach(tap).map_err(|source| DeviceError::Tap {
            tap: tap.clone(),
            source,
        })?;
        Ok(Self {
            tap: file,
            mac: config.mac,
            rx_frame: vec![0; MAX_FRAME],
            tx_frame: vec![0; MAX_FRAME],
            rx_limiter: RateLimiter::new(&config.rx)?,
            tx_limiter: RateLimiter::new(&config.tx)?,
        })
    }

    /// The next frame from the tap, with its header.
    fn next_frame(&mut self) -> Option<&[u8]> {
        loop {
            match self.tap.read(&mut self.rx_frame) {
                Ok(0) => return None,
                Ok(length) if length > HEADER => {
                    self.rx_frame[HEADER_BUFFERS..HEADER].copy_from_slice(&1u16.to_le_bytes());
                    return Some(&self.rx_frame[..length]);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn receive(&mut self, queues: &mut Queues) {
        queues.for_each_request(RX_QUEUE, |request| {
            // A frame without tokens stays in the tap, and its length is not known before it is read.
            if !self.rx_limiter.has_tokens() {
                return None;
            }
            let length = self.next_frame()?.len();
            self.rx_limiter.spend((length - HEADER) as u64);
            let frame = &self.rx_frame[..length];
            // A frame that is longer than the driver's buffer is lost.
            let written = request.write(frame).map_or(0, |()| frame.len());
            Some(written as u32)
        });
    }

    fn transmit(&mut self, queues: &mut Queues) {
        queues.for_each_request(TX_QUEUE, |request| {
            let length = request.readable().saturating_sub(HEADER);
            if !self.tx_limiter.admit(|| length as u64) {
                return None;
            }
            if let Some(frame) = nospec::first_mut(&mut self.tx_frame, request.readable())
                && request.read(frame).is_ok()
                && let Some(header) = frame.get_mut(..HEADER)
            {
                // No offloads are negotiated, so the host must not carry out any: what the driver has
                // written here would reach the host's network and its neighbours.
                header.fill(0);
                // A tap that is down or full loses frames, as a wire does.
                let _ = self.tap.write(frame);
            }
            Some(0)
        });
    }
}

impl VirtioDevice for Net {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> Features {
        match self.mac {
            Some(_) => Features::of(&[VIRTIO_NET_F_MAC]),
            // The driver chooses an address.
            None => Features::default(),
        }
    }

    fn queue_count(&self) -> usize {
        2
    }

    fn config_space(&self) -> Vec<u8> {
        self.mac.unwrap_or_default().to_vec()
    }

    fn process_queue(&mut self, index: usize, queues: &mut Queues) {
        match index {
            RX_QUEUE => self.receive(queues),
            _ => self.transmit(queues),
        }
    }

    fn rate_limit_timer(&self, index: usize) -> Option<RawFd> {
        match index {
            RX_QUEUE => self.rx_limiter.timer(),
            _ => self.tx_limiter.timer(),
        }
    }

    fn host_event(&self) -> Option<RawFd> {
        Some(self.tap.as_raw_fd())
    }

    fn on_host_event(&mut self, queues: &mut Queues) {
        self.receive(queues);
    }
}

/// A file whose reads and writes are the frames of the tap `name`.
fn attach(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    let header = HEADER as libc::c_int;
    let fd = file.as_raw_fd();
    // SAFETY: the file is open; TUNSETIFF takes an ifreq, TUNSETVNETHDRSZ an int, TUNSETOFFLOAD a
    // number.
    let failed = unsafe {
        libc::ioctl(fd, libc::TUNSETIFF, &raw const request) < 0
            || libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const header) < 0
            // No offloads: the driver gets whole frames with checksums.
            || libc::ioctl(fd, libc::TUNSETOFFLOAD, 0) < 0
    };
    match failed {
        true => Err(io::Error::last_os_error()),
        false => Ok(file),
    }
}

#[cfg(test)]
mod tests;
