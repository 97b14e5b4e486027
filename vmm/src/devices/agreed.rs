//! What a driver may put into a queue by what it has agreed on with the device.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Whether the request that begins at descriptor `head` of `queue` keeps to what was agreed on. No
/// device here offers indirect descriptors (`VIRTIO_RING_F_INDIRECT_DESC`), so a driver may not use
/// any (VIRTIO 1.2, 2.7.5.3.1): virtio-queue would follow them, to requests of 65,535 parts.
///
/// A driver that changes a descriptor after it was looked at here gets past this. That gains it a
/// longer request, and nothing else: virtio-queue checks each part.
pub(super) fn keeps_to(queue: &Queue, memory: &GuestMemoryMmap, head: u16) -> bool {
    let table = GuestAddress(queue.desc_table());
    let mut index = head;
    // A chain that is longer than its queue is a loop, which virtio-queue ends as well.
    for _ in 0..queue.size() {
        // Where there is no descriptor, the chain ends for virtio-queue too.
        if index >= queue.size() {
            return true;
        }
        let place = table.0 + u64::from(index) * size_of::<Descriptor>() as u64;
        let Ok(part) = memory.read_obj::<Descriptor>(GuestAddress(place)) else {
            return true;
        };
        if u32::from(part.flags()) & VRING_DESC_F_INDIRECT != 0 {
            return false;
        }
        if u32::from(part.flags()) & VRING_DESC_F_NEXT == 0 {
            return true;
        }
        index = part.next();
    }
    true
}
