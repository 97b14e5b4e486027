//! A source of randomness: the host's random number generator.
//!
//! Source: VIRTIO 1.2, 5.4.

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::device::VirtioDevice;
use super::features::Features;
use super::queues::Queues;

/// Most bytes for one request.
const MAX_BYTES: usize = 4096;

/// The source of randomness of one guest.
pub(crate) struct Entropy {
    buffer: [u8; MAX_BYTES],
}

impl Entropy {
    pub(crate) fn new() -> Self {
        Self {
            buffer: [0; MAX_BYTES],
        }
    }

    /// Up to `length` fresh random bytes.
    fn fresh(&mut self, length: usize) -> &[u8] {
        let length = length.min(MAX_BYTES);
        // SAFETY: the buffer has at least that many bytes.
        let got = unsafe { libc::getrandom(self.buffer.as_mut_ptr().cast(), length, 0) };
        &self.buffer[..usize::try_from(got).unwrap_or(0)]
    }
}

impl VirtioDevice for Entropy {
    fn device_id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> Features {
        Features::default()
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn config_space(&self) -> Vec<u8> {
        Vec::new()
    }

    fn process_queue(&mut self, index: usize, queues: &mut Queues) {
        queues.for_each_request(index, |request| {
            let bytes = self.fresh(request.writable());
            let written = request.write(bytes).map_or(0, |()| bytes.len());
            Some(written as u32)
        });
    }
}
