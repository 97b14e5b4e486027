//! All devices of one guest, and which of them a vCPU accesses.

use std::sync::Arc;

use baton_config::{GuestConfig, KernelSource};
use kvm_ioctls::VmFd;
use vm_memory::GuestMemoryMmap;

use super::error::DeviceError;
use super::mmio_region::{MAX_DEVICES, MmioRegion};
use super::virtio::{
    Block, CpuGranter, Entropy, MmioTransport, Net, VirtioDevice, Vsock, VsockBounds,
};

/// The devices of one guest.
///
/// Dropping it ends the devices' threads and closes their files. It must be dropped before the guest's memory
/// is unmapped. The drop waits for the threads, which can take long if a disk of the host hangs.
#[derive(Debug, Default)]
pub struct Devices {
    transports: Vec<MmioTransport>,
}

impl Devices {
    /// Opens the devices that `config` names: disks, network interfaces, vsock and randomness, in this
    /// sequence of slots. The vsock device has at most as many sockets as `sockets` allows.
    ///
    /// # Errors
    /// If there are too many devices, or one of them cannot be opened.
    pub fn new(
        vm: &VmFd,
        memory: &GuestMemoryMmap,
        config: &GuestConfig,
        sockets: VsockBounds,
    ) -> Result<Self, DeviceError> {
        let devices = open_all(config, sockets)?;
        if devices.len() > MAX_DEVICES {
            return Err(DeviceError::TooMany(devices.len()));
        }
        let transports = devices
            .into_iter()
            .zip(0..)
            .map(|(device, slot)| MmioTransport::open(vm, memory, slot, device))
            .collect::<Result<_, _>>()?;
        Ok(Self { transports })
    }

    /// Where the devices that `config` names will be. Opens nothing.
    ///
    /// # Errors
    /// If there are too many.
    pub fn planned(config: &GuestConfig) -> Result<Vec<MmioRegion>, DeviceError> {
        let randomness = usize::from(has_entropy(config));
        let count = config.disks.len() + config.nets.len() + config.vsock.iter().len() + randomness;
        match count {
            0..=MAX_DEVICES => Ok((0..count as u32).map(MmioRegion::of_slot).collect()),
            _ => Err(DeviceError::TooMany(count)),
        }
    }

    /// The number of devices.
    #[must_use]
    pub fn count(&self) -> usize {
        self.transports.len()
    }

    /// From now on the thread of the device in `slot` works only when `granter` grants it CPU time. A slot
    /// without a device changes nothing.
    pub fn require_cpu_grants(&self, slot: usize, granter: Arc<dyn CpuGranter>) {
        if let Some(transport) = self.transports.get(slot) {
            transport.require_cpu_grants(granter);
        }
    }

    /// Where the devices are, by slot, for the tables by which a kernel finds them.
    #[must_use]
    pub fn regions(&self) -> Vec<MmioRegion> {
        self.transports.iter().map(MmioTransport::region).collect()
    }

    /// A vCPU reads at guest address `address`. It reads all ones where there is no device.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((transport, offset)) => transport.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A vCPU writes at guest address `address`. Where there is no device the write has no effect.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((transport, offset)) = self.find(address) {
            transport.write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&MmioTransport, u64)> {
        self.transports
            .iter()
            .find_map(|transport| Some((transport, transport.region().offset(address)?)))
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // Every thread is requested to end before any is waited for, so that a device that hangs does not
        // delay the end of the others.
        self.transports.iter().for_each(MmioTransport::end);
    }
}

fn open_all(
    config: &GuestConfig,
    sockets: VsockBounds,
) -> Result<Vec<Box<dyn VirtioDevice>>, DeviceError> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for disk in &config.disks {
        devices.push(Box::new(Block::open(disk)?));
    }
    for net in &config.nets {
        devices.push(Box::new(Net::open(net)?));
    }
    if let Some(vsock) = &config.vsock {
        devices.push(Box::new(Vsock::open(vsock, sockets)?));
    }
    if has_entropy(config) {
        devices.push(Box::new(Entropy::new()));
    }
    Ok(devices)
}

/// The built-in test guest has no drivers, so it gets no device that it was not given.
fn has_entropy(config: &GuestConfig) -> bool {
    config.kernel != KernelSource::Builtin
}

#[cfg(test)]
mod tests;
