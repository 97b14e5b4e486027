//! Console output: from guests to stdout without ever making a vCPU wait.
//!
//! Lines go through a bounded queue to a thread that writes them. When the queue is full (a guest
//! floods, or nobody reads our stdout) the line is dropped. What has not been written at the end is
//! counted, whatever the reason.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{iter, mem};

use baton_os::output::Writer;
use baton_os::sys;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::printable;

/// Longest piece that is queued; longer lines are split.
const MAX_LINE: usize = 256;
/// Pieces that may wait to be written: at most 1 MiB, and 4 MiB of what has to be escaped, without the
/// names of guests.
const QUEUE: usize = 4096;
/// How often is asked, at the end, whether to wait on.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// How long the thread may take to see that the rest is given up.
const A_MOMENT: Duration = Duration::from_secs(1);

/// What one guest has printed, and at what cost.
#[derive(Debug, Default)]
struct Account {
    /// CPU time that the console's thread has used for this guest and nobody has asked for, ns.
    spent_ns: AtomicU64,
    /// Bytes of what it printed.
    printed: AtomicU64,
    /// How many of them have been written.
    written: AtomicU64,
}

/// How much of what a guest printed is lost.
#[derive(Clone, Debug)]
pub struct ConsoleCount(Arc<Account>);

impl ConsoleCount {
    /// Bytes that have not been written: when the console has ended, those that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        // In this order: what is printed meanwhile is not taken for written before.
        let written = self.0.written.load(Ordering::Acquire);
        let printed = self.0.printed.load(Ordering::Acquire);
        printed.saturating_sub(written)
    }
}

/// Bytes to be written, and whose they are.
struct Piece {
    bytes: Box<[u8]>,
    /// How many of them, at the end, the guest printed, without what was put before them or escaped.
    printed: usize,
    account: Arc<Account>,
}

/// The thread that writes what guests print.
#[derive(Debug)]
pub struct ConsoleThread {
    queue: SyncSender<Piece>,
    done: Receiver<()>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Readable when nothing more is to be written.
    give_up: EventFd,
    /// Bytes written: it goes on as long as there is a reader.
    progress: AtomicU64,
}

impl ConsoleThread {
    /// Starts the thread, writing to `out`, whether that blocks or not.
    ///
    /// # Errors
    /// If the host gives no thread or event.
    pub fn spawn(out: impl AsFd + Send + 'static) -> io::Result<Self> {
        let (queue, pieces) = mpsc::sync_channel::<Piece>(QUEUE);
        let (finished, done) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared {
            give_up: EventFd::new(EFD_NONBLOCK)?,
            progress: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                let mut batch = Vec::new();
                let mut of_whom = Vec::new();
                let mut reported = sys::thread_cpu_ns();
                while let Ok(piece) = pieces.recv() {
                    batch.clear();
                    // A guest without lines sends single characters: write them in one go.
                    for piece in iter::once(piece).chain(pieces.try_iter().take(QUEUE)) {
                        batch.extend_from_slice(&piece.bytes);
                        of_whom.push(Part {
                            length: piece.bytes.len(),
                            printed: piece.printed,
                            account: piece.account,
                        });
                    }
                    own.write(out.as_fd(), &batch, &of_whom);
                    let now = sys::thread_cpu_ns();
                    let parts = of_whom.drain(..).map(|part| (part.length, part.account));
                    share(now - mem::replace(&mut reported, now), parts);
                }
                let _ = finished.send(());
            })?;
        Ok(Self {
            queue,
            done,
            shared,
            thread,
        })
    }

    /// A port for one guest; `prefix` (such as `[name] `) begins each of its lines.
    #[must_use]
    pub fn port(&self, prefix: String) -> ConsolePort {
        ConsolePort {
            queue: Some(self.queue.clone()),
            prefix: prefix.into(),
            account: Arc::default(),
        }
    }

    /// Waits until all that was queued is written. `enough` is asked now and then, and told for how long
    /// nothing could be written; when it says so, the rest is dropped. All ports must be gone.
    pub fn finish(self, mut enough: impl FnMut(Duration) -> bool) {
        drop(self.queue);
        let mut before = 0;
        let mut since = Instant::now();
        while self.done.recv_timeout(ASKED_EVERY) == Err(RecvTimeoutError::Timeout) {
            let now = self.shared.progress.load(Ordering::Acquire);
            if mem::replace(&mut before, now) != now {
                since = Instant::now();
            }
            if enough(since.elapsed()) {
                // Only a counter at its maximum refuses a write, and one write cannot take it there.
                let _ = self.shared.give_up.write(1);
                // One that blocks in a write all the same, to a terminal that has been stopped, is left.
                if self.done.recv_timeout(A_MOMENT) == Err(RecvTimeoutError::Timeout) {
                    return;
                }
                break;
            }
        }
        let _ = self.thread.join();
    }
}

/// The part of a batch that is one piece.
struct Part {
    length: usize,
    printed: usize,
    account: Arc<Account>,
}

impl Shared {
    /// Writes `batch`, which consists of `parts`. That it cannot is no reason to stop the guests: what is
    /// lost shows in what has been written.
    fn write(&self, out: BorrowedFd<'_>, batch: &[u8], parts: &[Part]) {
        // SAFETY: the event lives as long as `self`.
        let give_up = unsafe { BorrowedFd::borrow_raw(self.give_up.as_raw_fd()) };
        let mut writer = Writer::new(out);
        writer.give_up = Some(give_up);
        let mut written = 0;
        let _ = writer.write(batch, |more| {
            written += more;
            self.progress.fetch_add(more as u64, Ordering::Release);
        });
        for part in parts {
            let own = written.min(part.length);
            written -= own;
            // The guest's bytes are the last of a piece.
            let lost = match own {
                0 => part.printed,
                _ => (part.length - own).min(part.printed),
            };
            let seen = (part.printed - lost) as u64;
            part.account.written.fetch_add(seen, Ordering::Release);
        }
    }
}

/// Divides `spent` ns by the number of bytes among those whose they were.
fn share(spent: u64, written: impl Iterator<Item = (usize, Arc<Account>)>) {
    let written: Vec<_> = written.collect();
    let bytes: u64 = written.iter().map(|(bytes, _)| *bytes as u64).sum();
    for (own, account) in written {
        let part = u128::from(spent) * own as u128 / u128::from(bytes.max(1));
        account.spent_ns.fetch_add(part as u64, Ordering::Relaxed);
    }
}

/// Where one guest's lines go.
#[derive(Clone, Debug)]
pub struct ConsolePort {
    queue: Option<SyncSender<Piece>>,
    prefix: Arc<str>,
    account: Arc<Account>,
}

impl ConsolePort {
    /// A port whose output goes nowhere.
    #[must_use]
    pub fn discard() -> Self {
        Self {
            queue: None,
            prefix: "".into(),
            account: Arc::default(),
        }
    }

    /// CPU time that writing what the guest printed has taken since the last call, ns.
    pub fn take_spent_ns(&self) -> u64 {
        match self.account.spent_ns.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.account.spent_ns.swap(0, Ordering::Relaxed),
        }
    }

    /// How much is lost of what the guest prints here; it can be asked when the port is gone.
    #[must_use]
    pub fn count(&self) -> ConsoleCount {
        ConsoleCount(Arc::clone(&self.account))
    }

    /// Whether lines of several guests share the output.
    fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }

    fn send(&self, text: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let mut bytes = Vec::with_capacity(self.prefix.len() + text.len());
        bytes.extend_from_slice(self.prefix.as_bytes());
        match self.is_shared() {
            true => printable::append(&mut bytes, text),
            // The terminal is the guest's, and what it draws there too.
            false => bytes.extend_from_slice(text),
        }
        let piece = Piece {
            bytes: bytes.into_boxed_slice(),
            printed: text.len(),
            account: Arc::clone(&self.account),
        };
        self.account
            .printed
            .fetch_add(text.len() as u64, Ordering::Release);
        // One that there is no room for is never written, and so counts as lost.
        let _ = queue.try_send(piece);
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
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What `print` writes by ports of a console, given their lines' beginnings.
    fn printed<const N: usize>(
        prefixes: [&str; N],
        print: impl FnOnce([ConsolePort; N]),
    ) -> String {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let console = ConsoleThread::spawn(writer).expect("thread");
        print(prefixes.map(|prefix| console.port(prefix.to_owned())));
        console.finish(|_| false);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn lines_of_two_vcpus_stay_apart_and_the_last_one_is_ended() {
        let text = printed(["[a] "], |[port]| {
            let mut first = LineBuffer::lines(port.clone());
            let mut second = LineBuffer::lines(port);
            for (a, b) in b"one\n".iter().zip(b"two\n") {
                first.push(*a);
                second.push(*b);
            }
            first.push(b'x');
        });
        assert_eq!(text, "[a] one\n[a] two\n[a] x\n");
    }

    #[test]
    fn who_prints_pays_for_the_writing_by_the_byte() {
        let [much, little] = [(); 2].map(|()| Arc::new(Account::default()));
        let written = [(300, Arc::clone(&much)), (100, Arc::clone(&little))];
        share(1_000, written.into_iter());
        assert_eq!(
            [much, little].map(|account| account.spent_ns.load(Ordering::Relaxed)),
            [750, 250]
        );
        printed(["[a] "], |[port]| {
            assert_eq!(port.take_spent_ns(), 0);
            LineBuffer::lines(port.clone()).push(b'x');
            while port.take_spent_ns() == 0 {
                thread::yield_now();
            }
        });
    }

    #[test]
    fn only_a_guest_that_has_the_output_for_itself_draws_on_the_terminal() {
        for (prefix, shown) in [("", "\x1b[2Kone\r\n"), ("[a] ", "[a] \\x1b[2Kone\n")] {
            let text = printed([prefix], |[port]| {
                let mut serial = LineBuffer::interactive(port);
                serial.write_all(b"\x1b[2Kone\r\n").expect("taken");
            });
            assert_eq!(text, shown);
        }
    }

    #[test]
    fn flood_with_no_reader_drops_and_never_waits() {
        let (queue, reader) = mpsc::sync_channel(2);
        let port = ConsolePort {
            queue: Some(queue),
            prefix: "".into(),
            account: Arc::default(),
        };
        let mut buffer = LineBuffer::lines(port.clone());
        for _ in 0..10 {
            buffer.push(b'\n');
        }
        assert_eq!(reader.try_iter().count(), 2, "the others did not wait");
        assert_eq!(port.count().dropped(), 10, "nothing is written");
        // A line without end does not grow either.
        for _ in 0..10_000 {
            buffer.push(b'x');
        }
        assert!(buffer.line.capacity() <= MAX_LINE);
    }

    #[test]
    fn an_output_that_does_not_block_gets_everything_if_it_is_read() {
        let (mut reader, writer) = UnixStream::pair().expect("a pair");
        writer.set_nonblocking(true).expect("set");
        let console = ConsoleThread::spawn(writer).expect("thread");
        let port = console.port("[a] ".to_owned());
        let count = port.count();
        // More than there is room for.
        let line = vec![b'y'; 100];
        let mut buffer = LineBuffer::lines(port);
        for _ in 0..QUEUE {
            buffer.write_all(&line).expect("taken");
            buffer.end_line();
        }
        drop(buffer);
        let reader = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        console.finish(|_| false);
        let text = reader.join().expect("no panic").expect("text");
        assert_eq!(text.lines().count(), QUEUE);
        assert_eq!(count.dropped(), 0);
    }

    #[test]
    fn what_is_lost_is_counted_in_bytes_whether_nobody_reads_or_it_cannot_be_written() {
        let flood = |console: ConsoleThread, prefix: &str| {
            let port = console.port(prefix.to_owned());
            let count = port.count();
            let mut buffer = LineBuffer::lines(port);
            for _ in 0..2 * QUEUE {
                // Ten bytes and an end, of which the first are shown as four each.
                buffer
                    .write_all(b"\x07\x07\x07\x07\x07yyyyy")
                    .expect("taken");
                buffer.end_line();
            }
            drop(buffer);
            console.finish(|stuck| stuck > Duration::from_millis(10));
            count.dropped()
        };
        let all = 2 * QUEUE as u64 * 11;
        for prefix in ["", "[a] "] {
            let (mut reader, writer) = io::pipe().expect("a pipe");
            let dropped = flood(ConsoleThread::spawn(writer).expect("thread"), prefix);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("text");
            let line = match prefix {
                "" => 11,
                _ => 4 + 26,
            };
            let seen = (read.len() / line) as u64 * 11;
            // A line may have been written in part.
            assert!(
                (seen..seen + 11).contains(&(all - dropped)),
                "{seen} and {dropped} of {all}"
            );
            assert!(dropped > 0);

            let full = std::fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .expect("there");
            let dropped = flood(ConsoleThread::spawn(full).expect("thread"), prefix);
            assert_eq!(dropped, all);
        }
    }
}
