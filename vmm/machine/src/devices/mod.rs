//! The devices of a guest: disks, network interfaces, sockets to the host and a source of randomness.
//!
//! A device never blocks an executor. A vCPU that accesses a device only reads or writes its registers. The
//! driver's notifications go from KVM straight to the device's thread (ioeventfd), and the device's
//! IRQs go straight to KVM (irqfd).

mod error;
mod guest_devices;
mod mmio_region;
mod virtio;

pub use error::DeviceError;
pub use guest_devices::Devices;
pub use mmio_region::{MAX_DEVICES, MmioRegion};
pub use virtio::{CpuGranter, VsockBounds};
