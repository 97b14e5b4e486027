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

use super::rate_limiter::Throttle;
use super::{Device, DeviceError, Rings};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// `struct virtio_net_hdr_v1`, in front of each frame.
const HEADER: usize = 12;
/// Its last field, the number of buffers that a received frame takes: one.
const HEADER_BUFFERS: usize = 10;
/// Longest frame with its header: an MTU of 64 KiB.
const MOST: usize = HEADER + 65_550;

/// An interface.
pub(super) struct Net {
    tap: File,
    mac: Option<[u8; 6]>,
    received: Vec<u8>,
    sent: Vec<u8>,
    /// Of frames to the guest.
    receiving: Throttle,
    /// Of frames from it.
    sending: Throttle,
}

impl Net {
    /// Opens the tap.
    pub(super) fn open(config: &NetConfig) -> Result<Self, DeviceError> {
        let tap = &config.tap;
        if !Path::new("/sys/class/net").join(tap).exists() {
            return Err(DeviceError::NoTap { tap: tap.clone() });
        }
        let file = attach(tap).map_err(|source| DeviceError::Tap {
            tap: tap.clone(),
            source,
        })?;
        Ok(Self {
            tap: file,
            mac: config.mac,
            received: vec![0; MOST],
            sent: vec![0; MOST],
            receiving: Throttle::new(&config.rx)?,
            sending: Throttle::new(&config.tx)?,
        })
    }

    /// The next frame from the tap, with its header.
    fn next_frame(&mut self) -> Option<&[u8]> {
        loop {
            match self.tap.read(&mut self.received) {
                Ok(0) => return None,
                Ok(length) if length > HEADER => {
                    self.received[HEADER_BUFFERS..HEADER].copy_from_slice(&1u16.to_le_bytes());
                    return Some(&self.received[..length]);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn receive(&mut self, rings: &mut Rings) {
        rings.each(RECEIVE, |request| {
            // The tap keeps what has no tokens, and does not say how long it is.
            if !self.receiving.has_tokens() {
                return None;
            }
            let length = self.next_frame()?.len();
            self.receiving.spend((length - HEADER) as u64);
            let frame = &self.received[..length];
            // A frame that is longer than the driver's buffer is lost.
            let written = request.write(frame).map_or(0, |()| frame.len());
            Some(written as u32)
        });
    }

    fn transmit(&mut self, rings: &mut Rings) {
        rings.each(TRANSMIT, |request| {
            let length = request.readable().saturating_sub(HEADER);
            if !self.sending.admits(|| length as u64) {
                return None;
            }
            if let Some(frame) = nospec::first_mut(&mut self.sent, request.readable())
                && request.read(frame).is_ok()
                && let Some(header) = frame.get_mut(..HEADER)
            {
                // No offloads are agreed on, so the host shall not carry out any: what the driver
                // says here would go on to the host's network and to its neighbours.
                header.fill(0);
                // A tap that is down or full loses frames, as a wire does.
                let _ = self.tap.write(frame);
            }
            Some(0)
        });
    }
}

impl Device for Net {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        // Without an address of its own the driver makes one up.
        self.mac.map_or(0, |_| 1 << VIRTIO_NET_F_MAC)
    }

    fn queues(&self) -> usize {
        2
    }

    fn config(&self) -> Vec<u8> {
        self.mac.unwrap_or_default().to_vec()
    }

    fn serve(&mut self, index: usize, rings: &mut Rings) {
        match index {
            RECEIVE => self.receive(rings),
            _ => self.transmit(rings),
        }
    }

    fn calls(&self, index: usize) -> Option<RawFd> {
        match index {
            RECEIVE => self.receiving.calls(),
            _ => self.sending.calls(),
        }
    }

    fn source(&self) -> Option<io::Result<RawFd>> {
        Some(Ok(self.tap.as_raw_fd()))
    }

    fn arrived(&mut self, rings: &mut Rings) {
        self.receive(rings);
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
            // The driver knows of no offloads: whole frames with checksums.
            || libc::ioctl(fd, libc::TUNSETOFFLOAD, 0) < 0
    };
    match failed {
        true => Err(io::Error::last_os_error()),
        false => Ok(file),
    }
}

#[cfg(test)]
mod tests;
