//! Which chains of descriptors are requests: the rules of virtqueues that virtio-queue does not enforce.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Whether the chain that begins at descriptor `head` of `queue` keeps the rules.
///
/// virtio-queue is more generous: it ends a chain where the next descriptor does not exist or was in the
/// chain before, and takes the descriptors up to there as the request. Here a chain is invalid
/// - if it has more descriptors than the queue (VIRTIO 1.2, 2.7.5.3.1: such a chain is a loop), or refers to a
///   descriptor that does not exist;
/// - if a descriptor that the device reads follows one that it writes (2.7.4.2);
/// - if it has indirect descriptors, because no device here offers `VIRTIO_RING_F_INDIRECT_DESC`
///   (2.7.5.3.1). virtio-queue would follow them, to requests of 65,535 descriptors.
///
/// A driver can change a descriptor after this check. It gains nothing but another request than it has
/// made: virtio-queue checks each descriptor when it is used.
pub(super) fn is_valid(queue: &Queue, memory: &GuestMemoryMmap, head: u16) -> bool {
    let table = GuestAddress(queue.desc_table());
    let mut index = head;
    let mut written_before = false;
    for _ in 0..queue.size() {
        if index >= queue.size() {
            return false;
        }
        let address = table.0 + u64::from(index) * size_of::<Descriptor>() as u64;
        let Ok(descriptor) = memory.read_obj::<Descriptor>(GuestAddress(address)) else {
            return false;
        };
        let has = |flag| u32::from(descriptor.flags()) & flag != 0;
        if has(VRING_DESC_F_INDIRECT) || written_before && !has(VRING_DESC_F_WRITE) {
            return false;
        }
        if !has(VRING_DESC_F_NEXT) {
            return true;
        }
        written_before = has(VRING_DESC_F_WRITE);
        index = descriptor.next();
    }
    false
}
