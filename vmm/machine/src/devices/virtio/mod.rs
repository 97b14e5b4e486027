//! Virtio devices: disks, network interfaces, sockets to the host and a source of randomness, each
//! behind a window of registers in guest memory (virtio-mmio) and with a thread of its own.
//!
//! A device with a limit (`rate_limit.rs`) leaves in its queues what has no tokens (`throttle.rs`).
//!
//! Nothing here blocks an executor: a vCPU that touches a window only reads or writes registers, its
//! notifications go from KVM straight to the device's thread (ioeventfd), and the device's interrupts
//! go straight to KVM (irqfd).
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, sections 2 and 4.2. The rings are
//! rust-vmm's virtio-queue.

mod block;
mod cpu_grant;
mod descriptor_chain;
mod entropy;
mod irq_trigger;
mod mailbox;
mod mmio_transport;
mod net;
mod queue_access;
mod queues;
mod rate_limiter;
mod registers;
mod request;
mod token_bucket;
mod vsock;
mod worker;

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use baton_config::{GuestConfig, KernelSource};
pub use cpu_grant::Granter;
use kvm_ioctls::VmFd;
pub use mmio_transport::Place;
use mmio_transport::Window;
use queues::Rings;
use request::Request;
use thiserror::Error;
use vm_memory::GuestMemoryMmap;
pub use vsock::Bounds as VsockBounds;

/// Entries of a queue, at most.
const QUEUE_SIZE: u16 = 256;
/// Most devices of a guest: the I/O APIC has this many inputs that no other device uses.
pub const MAX_DEVICES: usize = 8;

/// A device that the guest cannot have.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// Too many.
    #[error(
        "{0} disks, network interfaces, vsock devices and sources of randomness are more than the \
         {MAX_DEVICES} devices that fit: give the guest fewer"
    )]
    TooMany(usize),
    /// A disk that cannot be opened.
    #[error("cannot use {} as a disk: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error(
        "cannot use {} as a disk: it is neither a regular file nor a block device; name a raw image",
        path.display()
    )]
    NoDisk {
        /// The file.
        path: PathBuf,
    },
    /// A block device that somebody has claimed for himself.
    #[error(
        "disk {} is in use: it is mounted, a part of another device, or another guest or program writes it; \
         free it first",
        path.display()
    )]
    DiskClaimed {
        /// The device.
        path: PathBuf,
    },
    /// A disk that another guest or program writes.
    #[error(
        "disk {} is in use by another guest or program: stop that, or give both ',ro'",
        path.display()
    )]
    DiskInUse {
        /// The file.
        path: PathBuf,
    },
    /// A file without a sector.
    #[error("disk {} is shorter than a sector of 512 bytes", path.display())]
    DiskTooShort {
        /// The file.
        path: PathBuf,
    },
    /// No such interface.
    #[error(
        "there is no network interface {tap}: create it with 'ip tuntap add {tap} mode tap user \
         $USER' and 'ip link set {tap} up'"
    )]
    NoTap {
        /// Its name.
        tap: String,
    },
    /// An interface that cannot be opened.
    #[error("cannot use network interface {tap}: {source}; it must be a tap that you may use")]
    Tap {
        /// Its name.
        tap: String,
        /// Why not.
        source: io::Error,
    },
    /// A path for vsock that is no place for a socket.
    #[error("cannot listen for vsock at {}: {source}; name another path", path.display())]
    Vsock {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path for vsock where something is.
    #[error(
        "cannot listen for vsock at {}: there is a file that is no socket; remove it or name another \
         path",
        path.display()
    )]
    VsockExists {
        /// The path.
        path: PathBuf,
    },
    /// A path for vsock where somebody listens.
    #[error(
        "vsock path {} is in use by another guest or program: stop that, or name another path",
        path.display()
    )]
    VsockInUse {
        /// The path.
        path: PathBuf,
    },
    /// A path for vsock that leaves no room for ports.
    #[error(
        "vsock path {} is too long: at most {most} bytes leave room for a port",
        path.display()
    )]
    VsockTooLong {
        /// The path.
        path: PathBuf,
        /// Bytes that fit.
        most: usize,
    },
    /// A resource of the host.
    #[error("cannot set up a virtio device: {0}")]
    Host(#[from] io::Error),
}

/// What a kind of device does with its queues. Called on the device's thread only.
trait Device: Send {
    /// Virtio's number of the kind.
    fn kind(&self) -> u32;

    /// Feature bits on offer, besides those of the transport.
    fn features(&self) -> u64;

    /// Number of queues.
    fn queues(&self) -> usize;

    /// What the driver reads in the configuration space.
    fn config(&self) -> Vec<u8>;

    /// Takes what the driver has put into queue `index`, or a part of it as [`Rings::each`] says.
    fn serve(&mut self, index: usize, rings: &mut Rings);

    /// A file that becomes readable when queue `index`, which was left for want of tokens, is to be served
    /// again; reported once each time.
    fn calls(&self, _index: usize) -> Option<RawFd> {
        None
    }

    /// A file that becomes readable when something comes from outside; reported once each time.
    fn source(&self) -> Option<io::Result<i32>> {
        None
    }

    /// Takes what has come from outside.
    fn arrived(&mut self, _rings: &mut Rings) {}

    /// The driver has reset the device, or starts it anew after that: [`Rings::setup`] is what it has
    /// agreed on with the device now. A start is reported alone if it came before the thread heard of the
    /// reset.
    fn restarted(&mut self, _rings: &Rings) {}
}

/// The devices of one guest. Their threads end, and their files are closed, when this is dropped, which
/// must come before the guest's memory is unmapped. That may take long: a disk of the host may hang.
#[derive(Debug, Default)]
pub struct Devices {
    windows: Vec<Window>,
}

impl Devices {
    /// The devices that `config` asks for, in the order disks, interfaces, vsock, randomness; vsock
    /// with at most so many `sockets`.
    ///
    /// # Errors
    /// What cannot be had, as [`DeviceError`].
    pub fn new(
        vm: &VmFd,
        memory: &GuestMemoryMmap,
        config: &GuestConfig,
        sockets: VsockBounds,
    ) -> Result<Self, DeviceError> {
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        for disk in &config.disks {
            devices.push(Box::new(block::Block::open(disk)?));
        }
        for net in &config.nets {
            devices.push(Box::new(net::Net::open(net)?));
        }
        if let Some(vsock) = &config.vsock {
            devices.push(Box::new(vsock::Vsock::open(vsock, sockets)?));
        }
        // The test guest has no drivers.
        if config.kernel != KernelSource::Builtin {
            devices.push(Box::new(entropy::Entropy::new()));
        }
        if devices.len() > MAX_DEVICES {
            return Err(DeviceError::TooMany(devices.len()));
        }
        let windows = devices
            .into_iter()
            .zip(0..)
            .map(|(device, slot)| Window::open(vm, memory, slot, device))
            .collect::<Result<_, _>>()?;
        Ok(Self { windows })
    }

    /// Where the windows of the devices that `config` asks for will be. Opens nothing.
    ///
    /// # Errors
    /// If there are too many.
    pub fn planned(config: &GuestConfig) -> Result<Vec<Place>, DeviceError> {
        let randomness = usize::from(config.kernel != KernelSource::Builtin);
        let count = config.disks.len() + config.nets.len() + config.vsock.iter().len() + randomness;
        match count {
            0..=MAX_DEVICES => Ok((0..count as u32).map(Place::of_slot).collect()),
            _ => Err(DeviceError::TooMany(count)),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// From now on the thread of device `slot` works only when `granter` lets it.
    pub fn ask_for_leave(&self, slot: usize, granter: Arc<dyn Granter>) {
        if let Some(window) = self.windows.get(slot) {
            window.ask_for_leave(granter);
        }
    }

    /// Where the windows are, for the tables by which a kernel finds them.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.windows.iter().map(Window::place).collect()
    }

    /// A read by a vCPU; all ones where there is nothing.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((window, offset)) => window.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write by a vCPU.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((window, offset)) = self.find(address) {
            window.write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&Window, u64)> {
        self.windows
            .iter()
            .find_map(|window| Some((window, window.place().offset(address)?)))
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // All are asked before one is waited for: one that hangs keeps no other from ending.
        self.windows.iter().for_each(Window::end);
    }
}
