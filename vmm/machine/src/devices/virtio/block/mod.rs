//! A disk: a raw image or a block device of the host.
//!
//! `disk.rs` reads and writes it, `disk_lock.rs` opens it so that no other guest or program uses it,
//! `serial.rs` names it for the guest, and `device.rs` carries out the driver's requests.

mod device;
mod disk;
mod disk_lock;
mod request_error;
mod serial;

pub(crate) use device::Block;

#[cfg(test)]
mod tests;
