//! Virtio devices behind virtio-mmio, each with a thread of its own.
//!
//! The vCPUs' side of a device is its [`MmioTransport`]: `registers.rs` holds what the driver negotiates,
//! and `mailbox.rs` passes the result on to the device's thread (`worker.rs`). The thread processes the
//! `queues.rs` with the code of the device ([`VirtioDevice`]). It touches a queue's memory only while the
//! driver allows it (`queue_access.rs`), and works only while the scheduler grants it CPU time
//! (`cpu_grant.rs`). What a rate limit does not admit yet stays in its queue (`rate_limiter.rs`).
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, sections 2 and 4.2. The layout of the queues is read and
//! written by rust-vmm's virtio-queue.

mod block;
mod cpu_grant;
mod descriptor_chain;
mod device;
mod entropy;
mod features;
mod irq_trigger;
mod mailbox;
mod mmio_transport;
mod net;
mod queue_access;
mod queue_set;
mod queues;
mod rate_limiter;
mod registers;
mod request;
mod token_bucket;
mod vsock;
mod worker;

pub(super) use block::Block;
pub use cpu_grant::CpuGranter;
pub(super) use device::VirtioDevice;
pub(super) use entropy::Entropy;
#[cfg(test)]
pub(super) use features::Features;
pub(super) use mmio_transport::MmioTransport;
pub(super) use net::Net;
#[cfg(test)]
pub(super) use queues::Queues;
pub(super) use vsock::Vsock;
pub use vsock::VsockBounds;

#[cfg(test)]
pub(super) mod test_support;
