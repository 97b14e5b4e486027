//! Why a guest cannot have one of its devices.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::mmio_region::MAX_DEVICES;

/// A device could not be set up.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The configuration has more devices than there are MMIO slots.
    #[error(
        "{0} disks, network interfaces, vsock devices and sources of randomness are more than the \
         {MAX_DEVICES} devices that fit: give the guest fewer"
    )]
    TooMany(usize),
    /// The disk could not be opened.
    #[error("cannot use {} as a disk: {source}", path.display())]
    Disk {
        /// The image or block device.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The path names neither a regular file nor a block device.
    #[error(
        "cannot use {} as a disk: it is neither a regular file nor a block device; name a raw image",
        path.display()
    )]
    NotADisk {
        /// The file.
        path: PathBuf,
    },
    /// The kernel has opened the block device exclusively for another purpose.
    #[error(
        "disk {} is in use: it is mounted, part of another device, or written by another guest or program; \
         free it first",
        path.display()
    )]
    BlockDeviceBusy {
        /// The block device.
        path: PathBuf,
    },
    /// Another guest or program uses the disk, and at least one of the two writes.
    #[error(
        "disk {} is in use by another guest or program: stop that, or give both ',ro'",
        path.display()
    )]
    DiskInUse {
        /// The image or block device.
        path: PathBuf,
    },
    /// The disk has not even one sector.
    #[error("disk {} is shorter than a sector of 512 bytes", path.display())]
    DiskTooShort {
        /// The image or block device.
        path: PathBuf,
    },
    /// The network interface does not exist.
    #[error(
        "there is no network interface {tap}: create it with 'ip tuntap add {tap} mode tap user \
         $USER' and 'ip link set {tap} up'"
    )]
    TapMissing {
        /// Name of the interface.
        tap: String,
    },
    /// The network interface could not be opened as a tap.
    #[error("cannot use network interface {tap}: {source}; it must be a tap that you may use")]
    Tap {
        /// Name of the interface.
        tap: String,
        /// The host's reason.
        source: io::Error,
    },
    /// The socket for vsock could not be created.
    #[error("cannot listen for vsock at {}: {source}; name another path", path.display())]
    Vsock {
        /// Path of the socket.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The path for vsock is taken by a file that is not a socket.
    #[error(
        "cannot listen for vsock at {}: a file that is not a socket exists there; remove it or name \
         another path",
        path.display()
    )]
    VsockPathTaken {
        /// Path of the file.
        path: PathBuf,
    },
    /// Another guest or program listens at the path for vsock.
    #[error(
        "vsock path {} is in use by another guest or program: stop that, or name another path",
        path.display()
    )]
    VsockInUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The path for vsock is too long for the suffix that names a port.
    #[error(
        "vsock path {} is too long: at most {limit} bytes leave room for a port",
        path.display()
    )]
    VsockPathTooLong {
        /// Path of the socket.
        path: PathBuf,
        /// Longest path that fits, bytes.
        limit: usize,
    },
    /// A file, thread or KVM resource of a device could not be created.
    #[error("cannot set up a virtio device: {0}")]
    Host(#[from] io::Error),
}
