//! Sockets between a guest and the host, without a network.
//!
//! The guest's stream sockets of the family `AF_VSOCK` end at Unix sockets of the host. `device.rs` has the
//! queues. `muxer.rs` passes packets and events on to the connections (`connections.rs`), each of which
//! (`connection.rs`) has a buffer in each direction (`to_host.rs`, `from_host.rs`) and counts credit
//! (`credit.rs`). Programs of the host connect at `listener.rs` and are `pending.rs` until they have named
//! a port. `poller.rs` watches all Unix sockets.
//!
//! A guest can send whatever it likes. A packet that cannot be parsed is dropped or answered by a reset; one
//! that breaks the protocol ends its connection, and no other.
//!
//! Source: VIRTIO 1.2, 5.10.

mod bounds;
mod connection;
mod connections;
mod credit;
mod device;
mod from_host;
mod listener;
mod muxer;
mod packet;
mod pending;
mod poller;
mod resets;
mod to_host;

pub use bounds::VsockBounds;
pub(crate) use device::Vsock;

#[cfg(test)]
mod tests;
