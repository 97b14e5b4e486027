//! What a driver may put into a queue by the rules of the queue and by what it has agreed on with the
//! device.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Whether the request that begins at descriptor `head` of `queue` is one. virtio-queue is more
/// generous: it ends a chain where there is no further descriptor, or no new one, and takes what it has
/// by then for the request. Here it is none
/// - with more parts than the queue has descriptors (VIRTIO 1.2, 2.7.5.3.1: such a chain closes into a
///   loop), or with a part that does not exist;
/// - if the device reads a part behind one that it writes (2.7.4.2);
/// - with indirect descriptors, which no device here offers (`VIRTIO_RING_F_INDIRECT_DESC`,
///   2.7.5.3.1): virtio-queue would follow them, to requests of 65,535 parts.
///
/// A driver that changes a descriptor after it was looked at here gets past this. That gains it another
/// request than it has asked for, and nothing else: virtio-queue checks each part.
pub(super) fn keeps_to(queue: &Queue, memory: &GuestMemoryMmap, head: u16) -> bool {
    let table = GuestAddress(queue.desc_table());
    let mut index = head;
    let mut writes = false;
    for _ in 0..queue.size() {
        if index >= queue.size() {
            return false;
        }
        let place = table.0 + u64::from(index) * size_of::<Descriptor>() as u64;
        let Ok(part) = memory.read_obj::<Descriptor>(GuestAddress(place)) else {
            return false;
        };
        let is = |flag| u32::from(part.flags()) & flag != 0;
        if is(VRING_DESC_F_INDIRECT) || writes && !is(VRING_DESC_F_WRITE) {
            return false;
        }
        if !is(VRING_DESC_F_NEXT) {
            return true;
        }
        writes = is(VRING_DESC_F_WRITE);
        index = part.next();
    }
    false
}
