//! A source of randomness: the host's.
//!
//! Source: VIRTIO 1.2, 5.4.

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::{Device, Rings};

/// Most bytes for one request.
const MOST: usize = 4096;

/// The source.
pub(super) struct Entropy {
    buffer: [u8; MOST],
}

impl Entropy {
    pub(super) fn new() -> Self {
        Self { buffer: [0; MOST] }
    }

    /// Fresh bytes, `length` of them or fewer.
    fn fresh(&mut self, length: usize) -> &[u8] {
        let length = length.min(MOST);
        // SAFETY: the buffer has at least that many bytes.
        let got = unsafe { libc::getrandom(self.buffer.as_mut_ptr().cast(), length, 0) };
        &self.buffer[..usize::try_from(got).unwrap_or(0)]
    }
}

impl Device for Entropy {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(&mut self, index: usize, rings: &mut Rings) {
        rings.each(index, |request| {
            let bytes = self.fresh(request.writable());
            let written = request.write(bytes).map_or(0, |()| bytes.len());
            Some(written as u32)
        });
    }
}
