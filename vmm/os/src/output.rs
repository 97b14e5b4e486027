//! Writing to files that may or may not block, such as standard output: that property belongs to the open
//! file, which this process shares with the program that started it, and node, ssh and tmux switch it. A file
//! that does not block refuses a write for which it has no room. Here such a write waits, as it would on a
//! file that blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Longest piece that is written at once, `PIPE_BUF`: a pipe that has room takes so much without
/// blocking, so that the writer can still give up.
const PIECE: usize = 4096;
/// Pause where a file reports that it has room and then takes nothing.
const REST: Duration = Duration::from_millis(1);

/// Writes all of `bytes`, however long `file` takes.
///
/// # Errors
/// If the file takes no more.
pub fn write_all(file: &impl AsFd, bytes: &[u8]) -> io::Result<()> {
    Writer::new(file.as_fd()).write(bytes, |_| {})
}

/// [`write_all`], for bytes that need no reader.
///
/// # Errors
/// If the file takes no more, or one of kind `TimedOut` after `patience`.
pub fn write_within(file: &impl AsFd, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut writer = Writer::new(file.as_fd());
    writer.until = Some(Instant::now() + patience);
    writer.write(bytes, |_| {})
}

/// What keeps a write from going on for ever.
#[derive(Debug)]
pub struct Writer<'a> {
    file: BorrowedFd<'a>,
    /// A file that becomes readable when the rest is not to be written.
    pub give_up: Option<BorrowedFd<'a>>,
    until: Option<Instant>,
}

impl<'a> Writer<'a> {
    /// A writer to `file`, which stays the caller's.
    pub fn new(file: BorrowedFd<'a>) -> Self {
        Self {
            file,
            give_up: None,
            until: None,
        }
    }

    /// Writes `bytes`, and calls `wrote` with the length of each part when it is written.
    ///
    /// # Errors
    /// If the file takes no more, or one of kind `TimedOut` if the rest is given up.
    pub fn write(&self, bytes: &[u8], mut wrote: impl FnMut(usize)) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.wait()?;
            match rustix::io::write(self.file, &rest[..rest.len().min(PIECE)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    wrote(written);
                }
                Err(Errno::INTR) => {}
                // Another program was faster, or a terminal has room for less than one character.
                Err(Errno::AGAIN) => thread::sleep(REST),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for room.
    fn wait(&self) -> io::Result<()> {
        let mut both = [
            PollFd::from_borrowed_fd(self.file, PollFlags::OUT),
            PollFd::from_borrowed_fd(self.give_up.unwrap_or(self.file), PollFlags::IN),
        ];
        let files = match self.give_up {
            Some(_) => &mut both[..],
            None => &mut both[..1],
        };
        loop {
            let left = self
                .until
                .map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(files, timeout.as_ref()) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) if files.get(1).is_some_and(|file| !file.revents().is_empty()) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Both ends of a connection, of which the first does not block and has no room.
    fn full() -> (UnixStream, UnixStream, usize) {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        let mut there = 0;
        while let Ok(written) = ours.write(&[b'x'; PIECE]) {
            there += written;
        }
        (ours, theirs, there)
    }

    #[test]
    fn a_file_that_does_not_block_is_waited_for_and_gets_all() {
        let (ours, mut theirs, there) = full();
        let bytes = vec![b'y'; 1 << 20];
        let read = thread::scope(|scope| {
            let writer = scope.spawn(|| write_all(&ours, &bytes));
            let mut read = vec![0; there + bytes.len()];
            theirs.read_exact(&mut read).expect("all");
            writer.join().expect("no panic").expect("written");
            read
        });
        assert!(read[there..].iter().all(|byte| *byte == b'y'));
    }

    #[test]
    fn a_write_that_needs_no_reader_is_given_up() {
        let (ours, _theirs, _) = full();
        let error = write_within(&ours, b"y", Duration::from_millis(1)).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (give_up, mut now) = UnixStream::pair().expect("a pair");
        now.write_all(b"x").expect("room");
        let mut writer = Writer::new(ours.as_fd());
        writer.give_up = Some(give_up.as_fd());
        let error = writer.write(b"y", |_| {}).expect_err("given up");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error_and_does_not_end_the_program() {
        let (ours, theirs, _) = full();
        drop(theirs);
        let error = write_all(&ours, b"y").expect_err("it has no reader");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
