//! The devices of a guest.

mod virtio;

pub use virtio::{DeviceError, Devices, Granter, MAX_DEVICES, Place, VsockBounds};
