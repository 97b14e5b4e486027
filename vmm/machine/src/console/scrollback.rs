//! The last output of a console, from which each reader takes what is new for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use baton_os::event::Event;

/// How many bytes are kept.
pub const KEPT: usize = 64 << 10;

/// The last [`KEPT`] bytes that a guest has printed. Each byte has a position: the number of bytes printed
/// before it. The guest never waits for readers; one that is too slow finds that bytes are gone.
pub(super) struct Scrollback {
    ring: Mutex<Ring>,
    /// Readable when there may be something to do for the thread that serves the readers.
    event: Event,
    /// Whether the event has been set since the last [`Self::take_event`].
    is_set: AtomicBool,
}

struct Ring {
    /// The byte with position `n` is at `n % KEPT`.
    bytes: Box<[u8]>,
    /// The position behind the last byte.
    end: u64,
}

impl Ring {
    fn oldest(&self) -> u64 {
        self.end.saturating_sub(KEPT as u64)
    }

    /// The part of the ring that begins at `position` and has at most `length` bytes, up to the end of the
    /// memory.
    fn part(position: u64, length: usize) -> std::ops::Range<usize> {
        let from = (position % KEPT as u64) as usize;
        from..KEPT.min(from + length)
    }
}

impl fmt::Debug for Scrollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrollback")
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

impl Scrollback {
    /// A scrollback without output.
    ///
    /// # Errors
    /// If the process has no file left.
    pub(super) fn new() -> io::Result<Self> {
        let ring = Ring {
            bytes: vec![0; KEPT].into_boxed_slice(),
            end: 0,
        };
        Ok(Self {
            ring: Mutex::new(ring),
            event: Event::new()?,
            is_set: AtomicBool::new(false),
        })
    }

    /// Appends `text`. The lock is held for copies only.
    pub(super) fn push(&self, text: &[u8]) {
        let mut ring = self.lock();
        let mut rest = text;
        while !rest.is_empty() {
            let part = Ring::part(ring.end, rest.len());
            let (now, later) = rest.split_at(part.len());
            ring.bytes[part].copy_from_slice(now);
            ring.end += now.len() as u64;
            rest = later;
        }
        drop(ring);
        self.wake();
    }

    /// Makes the event readable. A guest that prints byte by byte makes one system call for all bytes that
    /// the thread has not taken yet.
    pub(super) fn wake(&self) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            self.event.set();
        }
    }

    /// The file that becomes readable after [`Self::push`] and [`Self::wake`].
    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    /// Makes the event unreadable. To be called before the readers are served.
    pub(super) fn take_event(&self) {
        self.event.take();
        // By a swap, so that this thread sees what was done before a `wake` that found the event set.
        self.is_set.swap(false, Ordering::AcqRel);
    }

    /// The position of the oldest byte that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.lock().oldest()
    }

    /// The position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.lock().end
    }

    /// Copies what begins at `position` to `buffer`, and returns the number of bytes.
    ///
    /// # Errors
    /// The oldest position that is kept, if that is behind `position`.
    pub(super) fn copy(&self, position: u64, buffer: &mut [u8]) -> Result<usize, u64> {
        let ring = self.lock();
        let oldest = ring.oldest();
        if position < oldest {
            return Err(oldest);
        }
        let there = usize::try_from(ring.end.saturating_sub(position)).unwrap_or(0);
        let part = Ring::part(position, there.min(buffer.len()));
        let length = part.len();
        buffer[..length].copy_from_slice(&ring.bytes[part]);
        Ok(length)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that `scrollback` has from `position` on.
    fn from(scrollback: &Scrollback, mut position: u64) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let length = scrollback.copy(position, &mut buffer).expect("kept");
            if length == 0 {
                return all;
            }
            all.extend_from_slice(&buffer[..length]);
            position += length as u64;
        }
    }

    #[test]
    fn exactly_the_last_bytes_are_kept_whatever_the_pieces() {
        for piece in [1, 7, 255, 4096, KEPT - 1, KEPT, KEPT + 1, 3 * KEPT + 5] {
            let scrollback = Scrollback::new().expect("an event");
            let text: Vec<u8> = (0..4 * KEPT as u32).map(|n| (n % 251) as u8).collect();
            let mut printed = 0;
            for part in text.chunks(piece) {
                scrollback.push(part);
                printed += part.len();
                assert_eq!(scrollback.end(), printed as u64);
                // A sample is enough for short pieces.
                if piece >= 4096 || printed == text.len() {
                    let oldest = printed.saturating_sub(KEPT);
                    assert_eq!(scrollback.oldest(), oldest as u64);
                    let kept = from(&scrollback, oldest as u64);
                    assert!(kept == text[oldest..printed], "piece {piece}");
                }
            }
            let oldest = scrollback.oldest();
            let gone = scrollback.copy(oldest - 1, &mut [0; 1]);
            assert_eq!(gone, Err(oldest));
        }
    }

    #[test]
    fn the_event_is_set_again_after_it_was_taken() {
        let scrollback = Scrollback::new().expect("an event");
        for _ in 0..2 {
            scrollback.push(b"a");
            scrollback.push(b"b");
            scrollback.take_event();
            assert!(!scrollback.event().take(), "taken");
        }
        scrollback.wake();
        assert!(scrollback.event().take());
    }
}
