//! The thread that writes what guests print.

use std::io;
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

use super::account::{Account, charge};
use super::port::{ConsolePort, Piece};

/// Pieces that may wait to be written: at most 1 MiB, or 4 MiB if everything has to be escaped, without the
/// names of guests.
const QUEUE: usize = 4096;
/// How often [`ConsoleThread::finish`] calls its argument.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long the thread may take to notice that it is to drop the rest.
const GIVE_UP_TIME: Duration = Duration::from_secs(1);

/// The thread that writes what guests print.
#[derive(Debug)]
pub struct ConsoleThread {
    queue: SyncSender<Piece>,
    done: Receiver<()>,
    output: Arc<Output>,
    thread: JoinHandle<()>,
}

/// What the thread and its owner share.
#[derive(Debug)]
struct Output {
    /// Readable when nothing more is to be written.
    give_up: EventFd,
    /// Bytes written. The number grows as long as the output has a reader.
    progress: AtomicU64,
}

impl ConsoleThread {
    /// Starts the thread, writing to `out`, whether that blocks or not.
    ///
    /// # Errors
    /// If the host refuses a thread or an event.
    pub fn spawn(out: impl AsFd + Send + 'static) -> io::Result<Self> {
        let (queue, pieces) = mpsc::sync_channel::<Piece>(QUEUE);
        let (finished, done) = mpsc::sync_channel(1);
        let output = Arc::new(Output {
            give_up: EventFd::new(EFD_NONBLOCK)?,
            progress: AtomicU64::new(0),
        });
        let thread = thread::Builder::new().name("console".to_owned()).spawn({
            let output = Arc::clone(&output);
            move || {
                output.write_all(out.as_fd(), &pieces);
                let _ = finished.send(());
            }
        })?;
        Ok(Self {
            queue,
            done,
            output,
            thread,
        })
    }

    /// A port for one guest. Each line of the guest begins with `prefix` (such as `[name] `).
    #[must_use]
    pub fn port(&self, prefix: String) -> ConsolePort {
        ConsolePort::new(self.queue.clone(), prefix)
    }

    /// Waits until everything in the queue is written. Every now and then, `is_enough` is called with the
    /// time for which nothing could be written. When it returns true, the rest is dropped. All ports must
    /// have been dropped.
    pub fn finish(self, mut is_enough: impl FnMut(Duration) -> bool) {
        drop(self.queue);
        let mut before = 0;
        let mut since = Instant::now();
        while self.done.recv_timeout(CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let now = self.output.progress.load(Ordering::Acquire);
            if mem::replace(&mut before, now) != now {
                since = Instant::now();
            }
            if is_enough(since.elapsed()) {
                // Only a counter at its maximum refuses a write, and one write cannot take it there.
                let _ = self.output.give_up.write(1);
                // A thread that blocks in a write all the same, to a terminal that has been stopped, is left.
                if self.done.recv_timeout(GIVE_UP_TIME) == Err(RecvTimeoutError::Timeout) {
                    return;
                }
                break;
            }
        }
        let _ = self.thread.join();
    }
}

/// Pieces that are written in one go.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    parts: Vec<BatchPart>,
}

/// The part of a batch that is one piece.
struct BatchPart {
    length: usize,
    printed: usize,
    account: Arc<Account>,
}

impl Batch {
    fn push(&mut self, piece: Piece) {
        self.bytes.extend_from_slice(&piece.bytes);
        self.parts.push(BatchPart {
            length: piece.bytes.len(),
            printed: piece.printed,
            account: piece.account,
        });
    }

    /// Counts what the guests printed of the first `written` bytes.
    fn count_written(&self, mut written: usize) {
        for part in &self.parts {
            let own = written.min(part.length);
            written -= own;
            // The guest's bytes are the last of a piece.
            let lost = match own {
                0 => part.printed,
                _ => (part.length - own).min(part.printed),
            };
            part.account.add_written((part.printed - lost) as u64);
        }
    }

    /// Empties the batch, and charges the guests `ns` of CPU time for it.
    fn charge_and_clear(&mut self, ns: u64) {
        self.bytes.clear();
        let parts = self.parts.drain(..);
        charge(ns, parts.map(|part| (part.length, part.account)));
    }
}

impl Output {
    /// Writes all `pieces` to `out`, until no port is left.
    fn write_all(&self, out: BorrowedFd<'_>, pieces: &Receiver<Piece>) {
        let mut batch = Batch::default();
        let mut charged = sys::thread_cpu_ns();
        while let Ok(piece) = pieces.recv() {
            // A guest without lines sends single characters: write them in one go.
            for piece in iter::once(piece).chain(pieces.try_iter().take(QUEUE)) {
                batch.push(piece);
            }
            self.write(out, &batch);
            let now = sys::thread_cpu_ns();
            batch.charge_and_clear(now - mem::replace(&mut charged, now));
        }
    }

    /// Writes `batch`. Output that cannot be written is no reason to stop the guests: the counts of written
    /// bytes show the loss.
    fn write(&self, out: BorrowedFd<'_>, batch: &Batch) {
        // SAFETY: the event lives as long as `self`.
        let give_up = unsafe { BorrowedFd::borrow_raw(self.give_up.as_raw_fd()) };
        let mut writer = Writer::new(out);
        writer.give_up = Some(give_up);
        let mut written = 0;
        let _ = writer.write(&batch.bytes, |more| {
            written += more;
            self.progress.fetch_add(more as u64, Ordering::Release);
        });
        batch.count_written(written);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::console::line_buffer::LineBuffer;

    /// What `print` writes through the ports of a console, whose lines begin with `prefixes`.
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
    fn writing_is_charged_to_the_guest_that_prints() {
        printed(["[a] "], |[port]| {
            assert_eq!(port.take_cpu_ns(), 0);
            LineBuffer::lines(port.clone()).push(b'x');
            while port.take_cpu_ns() == 0 {
                thread::yield_now();
            }
        });
    }

    #[test]
    fn only_a_guest_that_has_the_output_for_itself_draws_on_the_terminal() {
        for (prefix, shown) in [("", "\x1b[2Kone\r\n"), ("[a] ", "[a] \\x1b[2Kone\n")] {
            let text = printed([prefix], |[port]| {
                let mut serial = LineBuffer::interactive(port);
                serial.write_all(b"\x1b[2Kone\r\n").expect("accepted");
            });
            assert_eq!(text, shown);
        }
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
            buffer.write_all(&line).expect("accepted");
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
    fn lost_output_is_counted_in_bytes_whether_it_is_not_read_or_cannot_be_written() {
        let flood = |console: ConsoleThread, prefix: &str| {
            let port = console.port(prefix.to_owned());
            let count = port.count();
            let mut buffer = LineBuffer::lines(port);
            for _ in 0..2 * QUEUE {
                // Ten bytes and a line end. The first five bytes are shown as four characters each.
                buffer
                    .write_all(b"\x07\x07\x07\x07\x07yyyyy")
                    .expect("accepted");
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
