//! Console output: from guests to stdout without ever making a vCPU wait.
//!
//! Lines go through a bounded queue to a thread that writes them. When the queue is full (a guest
//! floods, or nobody reads our stdout) the line is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{iter, mem};

use crate::sys;

/// Longest piece that is queued; longer lines are split.
const MAX_LINE: usize = 256;
/// Pieces that may wait to be written: at most 1 MiB.
const QUEUE: usize = 4096;

/// Bytes to be written, and who pays for that.
struct Piece {
    bytes: Box<[u8]>,
    spent_ns: Arc<AtomicU64>,
}

/// The thread that writes what guests print.
#[derive(Debug)]
pub struct ConsoleThread {
    queue: SyncSender<Piece>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl ConsoleThread {
    /// Starts the thread, writing to `out`.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn spawn(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, pieces) = mpsc::sync_channel::<Piece>(QUEUE);
        let (finished, done) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                let mut batch = Vec::new();
                let mut written = Vec::new();
                let mut reported = sys::thread_cpu_ns();
                while let Ok(piece) = pieces.recv() {
                    batch.clear();
                    // A guest without lines sends single characters: write them in one go.
                    for piece in iter::once(piece).chain(pieces.try_iter().take(QUEUE)) {
                        batch.extend_from_slice(&piece.bytes);
                        written.push((piece.bytes.len(), piece.spent_ns));
                    }
                    // A closed stdout is no reason to stop the guests.
                    let _ = out.write_all(&batch);
                    let _ = out.flush();
                    let now = sys::thread_cpu_ns();
                    share(now - mem::replace(&mut reported, now), written.drain(..));
                }
                let _ = finished.send(());
            })?;
        Ok(Self {
            queue,
            done,
            thread,
        })
    }

    /// A port for one guest; `prefix` (such as `[name] `) begins each of its lines.
    #[must_use]
    pub fn port(&self, prefix: String) -> ConsolePort {
        ConsolePort {
            queue: Some(self.queue.clone()),
            prefix: prefix.into(),
            dropped: Arc::default(),
            spent_ns: Arc::default(),
        }
    }

    /// Waits until all that was queued is written, but not longer than `patience`: nobody may be
    /// reading. All ports must be gone.
    pub fn finish(self, patience: Duration) {
        drop(self.queue);
        match self.done.recv_timeout(patience) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                let _ = self.thread.join();
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Divides `spent` ns by the number of bytes among those whose they were.
fn share(spent: u64, written: impl ExactSizeIterator<Item = (usize, Arc<AtomicU64>)>) {
    let written: Vec<_> = written.collect();
    let bytes: u64 = written.iter().map(|(bytes, _)| *bytes as u64).sum();
    for (own, spent_ns) in written {
        let part = u128::from(spent) * own as u128 / u128::from(bytes.max(1));
        spent_ns.fetch_add(part as u64, Ordering::Relaxed);
    }
}

/// Where one guest's lines go.
#[derive(Clone, Debug)]
pub struct ConsolePort {
    queue: Option<SyncSender<Piece>>,
    prefix: Arc<str>,
    dropped: Arc<AtomicU64>,
    /// CPU time that the console's thread has used for this guest and nobody has asked for, ns.
    spent_ns: Arc<AtomicU64>,
}

impl ConsolePort {
    /// A port whose output goes nowhere.
    #[must_use]
    pub fn discard() -> Self {
        Self {
            queue: None,
            prefix: "".into(),
            dropped: Arc::default(),
            spent_ns: Arc::default(),
        }
    }

    /// CPU time that writing what the guest printed has taken since the last call, ns.
    pub fn take_spent_ns(&self) -> u64 {
        match self.spent_ns.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.spent_ns.swap(0, Ordering::Relaxed),
        }
    }

    /// Lines that were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether lines of several guests share the output.
    fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }

    fn send(&self, text: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let mut bytes = Vec::with_capacity(self.prefix.len() + text.len());
        bytes.extend_from_slice(self.prefix.as_bytes());
        bytes.extend_from_slice(text);
        let piece = Piece {
            bytes: bytes.into_boxed_slice(),
            spent_ns: Arc::clone(&self.spent_ns),
        };
        if let Err(TrySendError::Full(_)) = queue.try_send(piece) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Gathers characters to lines for a [`ConsolePort`]. Each vCPU has its own, so lines of different
/// vCPUs do not run into each other.
#[derive(Debug)]
pub struct LineBuffer {
    line: Vec<u8>,
    port: ConsolePort,
    /// Pass characters on as they come.
    raw: bool,
}

impl LineBuffer {
    /// A buffer that sends whole lines.
    #[must_use]
    pub fn lines(port: ConsolePort) -> Self {
        Self {
            line: Vec::with_capacity(MAX_LINE),
            port,
            raw: false,
        }
    }

    /// A buffer that sends characters as they come if the guest has the output for itself, so that
    /// prompts show.
    #[must_use]
    pub fn interactive(port: ConsolePort) -> Self {
        let raw = !port.is_shared();
        let mut buffer = Self::lines(port);
        buffer.raw = raw;
        buffer
    }

    /// Takes one character.
    pub fn push(&mut self, byte: u8) {
        self.line.push(byte);
        if self.raw || byte == b'\n' {
            self.port.send(&self.line);
            self.line.clear();
        } else if self.line.len() >= MAX_LINE - 1 {
            self.end_line();
        }
    }

    /// Sends what there is of a line.
    pub fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.line.push(b'\n');
            self.port.send(&self.line);
            self.line.clear();
        }
    }
}

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|byte| self.push(*byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_two_vcpus_stay_apart_and_the_last_one_is_ended() {
        let out = Shared::default();
        let console = ConsoleThread::spawn(out.clone()).expect("thread");
        let port = console.port("[a] ".to_owned());
        let mut first = LineBuffer::lines(port.clone());
        let mut second = LineBuffer::lines(port);
        for (a, b) in b"one\n".iter().zip(b"two\n") {
            first.push(*a);
            second.push(*b);
        }
        first.push(b'x');
        drop((first, second));
        console.finish(Duration::from_secs(60));
        assert_eq!(
            *out.0.lock().expect("lock"),
            b"[a] one\n[a] two\n[a] x\n".to_vec()
        );
    }

    #[test]
    fn who_prints_pays_for_the_writing_by_the_byte() {
        let [much, little] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let written = [(300, Arc::clone(&much)), (100, Arc::clone(&little))];
        share(1_000, written.into_iter());
        assert_eq!(
            [much, little].map(|spent| spent.load(Ordering::Relaxed)),
            [750, 250]
        );
        let port = ConsoleThread::spawn(io::sink())
            .expect("thread")
            .port("[a] ".to_owned());
        assert_eq!(port.take_spent_ns(), 0);
        LineBuffer::lines(port.clone()).push(b'x');
        while port.take_spent_ns() == 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn flood_with_no_reader_drops_and_never_waits() {
        let (queue, _reader) = mpsc::sync_channel(2);
        let port = ConsolePort {
            queue: Some(queue),
            prefix: "".into(),
            dropped: Arc::default(),
            spent_ns: Arc::default(),
        };
        let mut buffer = LineBuffer::lines(port.clone());
        for _ in 0..10 {
            buffer.push(b'\n');
        }
        assert_eq!(port.dropped(), 8);
        // A line without end does not grow either.
        for _ in 0..10_000 {
            buffer.push(b'x');
        }
        assert!(buffer.line.capacity() <= MAX_LINE);
        assert!(port.dropped() > 8);
    }
}
