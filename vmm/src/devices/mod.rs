//! Virtio devices over MMIO.

use std::path::PathBuf;

use kvm_ioctls::VmFd;
use thiserror::Error;
use vm_memory::GuestMemoryMmap;

/// A device's registers in guest memory, and its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First address, in the MMIO hole below 4 GiB.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// Pin of the I/O APIC; edge-triggered.
    pub gsi: u32,
}

/// A device that could not be made.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A disk image cannot be opened.
    #[error("cannot open the disk {path}: {source}", path = .path.display())]
    Disk {
        /// Path as given.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What devices a guest has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceConfig {}

/// The devices of one guest, shared by its vCPUs.
#[derive(Debug)]
pub struct Devices {
    windows: Vec<Window>,
}

impl Devices {
    /// Makes the devices of `config` for the guest `vm` with this `memory`.
    ///
    /// # Errors
    /// What is missing.
    pub fn create(
        _config: &DeviceConfig,
        _vm: &VmFd,
        _memory: &GuestMemoryMmap,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            windows: Vec::new(),
        })
    }

    /// Where their registers are.
    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Fills `data` from the registers at `addr`. False: there is no device.
    #[must_use]
    pub fn mmio_read(&self, _addr: u64, _data: &mut [u8]) -> bool {
        false
    }

    /// Writes `data` to the registers at `addr`. False: there is no device.
    #[must_use]
    pub fn mmio_write(&self, _addr: u64, _data: &[u8]) -> bool {
        false
    }
}
