//! A reader of a console's output.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::scrollback::{KEPT, Scrollback};

/// Most bytes that are written at once.
const PIECE: usize = 4096;
/// How far a reader that was too slow is put behind the oldest byte, so that it does not lose that byte again
/// before it can be written.
const LEEWAY: u64 = KEPT as u64 / 2;

/// A reader of a console's output: how far it has come. It begins with the oldest byte that is kept.
#[derive(Debug)]
pub(super) struct OutputReader {
    /// The position of its next byte.
    next: u64,
    /// How many bytes before that one it has missed of which it has not been given notice.
    missed: u64,
    /// The rest of a notice of bytes that it has missed.
    notice: Vec<u8>,
}

impl OutputReader {
    /// A reader that has read nothing.
    pub(super) fn new(scrollback: &Scrollback) -> Self {
        Self {
            next: scrollback.oldest(),
            missed: 0,
            notice: Vec::new(),
        }
    }

    /// Whether there is something that it has not been given.
    pub(super) fn is_behind(&self, scrollback: &Scrollback) -> bool {
        self.missed > 0 || !self.notice.is_empty() || self.next < scrollback.end()
    }

    /// Writes to `file`, which does not block, as much as it takes of what the reader has not been given, and
    /// at most as much as is kept. Returns the number of bytes.
    ///
    /// # Errors
    /// If the file will take no more.
    pub(super) fn deliver(
        &mut self,
        file: BorrowedFd<'_>,
        scrollback: &Scrollback,
    ) -> io::Result<usize> {
        let mut delivered = 0;
        let mut buffer = [0; PIECE];
        while delivered < KEPT {
            let written = match self.notice(scrollback) {
                Some(notice) => write(file, &notice)?.inspect(|&written| {
                    self.missed = 0;
                    self.notice = notice[written..].to_vec();
                }),
                None => match scrollback.copy(self.next, &mut buffer) {
                    Ok(0) => break,
                    Ok(length) => write(file, &buffer[..length])?.inspect(|&written| {
                        self.next += written as u64;
                        delivered += written;
                    }),
                    // The guest has printed meanwhile.
                    Err(_) => continue,
                },
            };
            if written.is_none() {
                break;
            }
        }
        Ok(delivered)
    }

    /// What is to be written before the next byte: the rest of a notice, or one of all bytes that the reader has
    /// missed until now.
    fn notice(&mut self, scrollback: &Scrollback) -> Option<Vec<u8>> {
        if !self.notice.is_empty() {
            return Some(self.notice.clone());
        }
        let oldest = scrollback.oldest();
        if self.next < oldest {
            let next = oldest + LEEWAY;
            self.missed += next - self.next;
            self.next = next;
        }
        let missed = self.missed;
        let notice =
            || format!("\r\n[baton: {missed} bytes were not read in time]\r\n").into_bytes();
        (missed > 0).then(notice)
    }
}

/// Writes to `file`, which does not block, and returns the number of bytes; `None` if it has no room.
///
/// # Errors
/// If the file will take no more.
fn write(file: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::io::write(file, bytes) {
            Ok(written) => return Ok(Some(written)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_reader_that_is_too_slow_is_shown_how_much_it_has_missed_and_goes_on() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        let scrollback = Scrollback::new().expect("an event");
        let mut reader = OutputReader::new(&scrollback);
        let line = b"0123456789abcdef".repeat(64);
        let mut printed = 0u64;
        let mut delivered = 0;
        // Until the connection takes no more and more than is kept has followed.
        while printed - delivered < 3 * KEPT as u64 {
            scrollback.push(&line);
            printed += line.len() as u64;
            delivered += reader.deliver(ours.as_fd(), &scrollback).expect("open") as u64;
        }
        assert!(reader.is_behind(&scrollback));
        let mut read = vec![0; delivered as usize];
        theirs.read_exact(&mut read).expect("all");
        while reader.is_behind(&scrollback) {
            reader.deliver(ours.as_fd(), &scrollback).expect("open");
        }
        drop(ours);
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).expect("all");
        let (notice, rest) =
            rest.split_at(rest.iter().position(|&c| c == b']').expect("a notice") + 3);
        let kept = rest.len();
        assert!((KEPT - LEEWAY as usize..=KEPT).contains(&kept), "{kept}");
        let missed = printed - delivered - kept as u64;
        let expected = format!("\r\n[baton: {missed} bytes were not read in time]\r\n");
        assert_eq!(String::from_utf8_lossy(notice), expected);
        let end = line.repeat(KEPT / line.len());
        assert!(rest == &end[end.len() - kept..]);
    }
}
