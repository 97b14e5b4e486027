//! The log of a guest that `baton start` has started: what its process prints.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use baton_observe::control::directories;
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use thiserror::Error;

/// Bytes of a log that are shown at most, and read at once.
const MOST: u64 = 1 << 20;

/// A log cannot be shown.
#[derive(Debug, Error)]
pub enum LogError {
    /// There is none.
    #[error(
        "there is no log of a guest {name} in {directories}: baton start makes one, of the guests of the user who calls \
         it; a guest of a systemd unit is in the journal (journalctl -u UNIT), and another one prints where its baton vm \
         was started"
    )]
    None {
        /// The guest.
        name: String,
        /// Where it was searched for.
        directories: String,
    },
    /// It cannot be read.
    #[error("the log {} cannot be read: {source}", path.display())]
    Host {
        /// The log.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
}

/// The log of the guest `name` in the runtime directory `directory`.
fn path_in(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{}.log", name.replace('/', "_")))
}

/// Creates the log of the guest `name`, in the first runtime directory of this user. One that is there is emptied.
///
/// # Errors
/// If the host refuses.
pub(super) fn create(name: &str) -> io::Result<(File, PathBuf)> {
    let directory = directories().into_iter().next().unwrap_or_default();
    // It may exist.
    let _ = DirBuilder::new().mode(0o700).create(&directory);
    let path = path_in(&directory, name);
    let mut options = OpenOptions::new();
    // Standard output and standard error have a position each.
    options.append(true).create(true).mode(0o600);
    let file = options
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(&path)?;
    file.set_len(0)?;
    Ok((file, path))
}

/// The log of a guest, as far as it has been read.
#[derive(Debug)]
pub struct GuestLog {
    path: PathBuf,
    file: File,
    position: u64,
}

impl GuestLog {
    /// The log of the guest `name`, from the beginning of its last `lines` on.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(name: &str, lines: usize) -> Result<Self, LogError> {
        let directories = directories();
        for path in directories.iter().map(|own| path_in(own, name)) {
            match Self::at(path.clone(), lines) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened.map_err(|source| LogError::Host { path, source }),
            }
        }
        let directories = directories.iter().map(|path| path.display().to_string());
        Err(LogError::None {
            name: name.to_owned(),
            directories: directories.collect::<Vec<_>>().join(", "),
        })
    }

    fn at(path: PathBuf, lines: usize) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(&path)?;
        let mut log = Self {
            path,
            file,
            position: 0,
        };
        log.position = log.last(lines)?;
        Ok(log)
    }

    fn failed(&self, source: io::Error) -> LogError {
        let path = self.path.clone();
        LogError::Host { path, source }
    }

    /// Where the last `lines` begin, of which a line without an end is one.
    fn last(&self, lines: usize) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        let from = length.saturating_sub(MOST);
        let bytes = self.read_at(from)?;
        let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let ends = body.iter().enumerate().rev();
        let mut ends = ends.filter(|(_, byte)| **byte == b'\n');
        let begin = match lines.checked_sub(1) {
            None => bytes.len(),
            Some(before) => ends.nth(before).map_or(0, |(at, _)| at + 1),
        };
        Ok(from + begin as u64)
    }

    fn read_at(&self, from: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))?;
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What has been printed since the last call; none if there is nothing new. A log that was emptied, because the
    /// guest was started again, is read from its beginning.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>, LogError> {
        let mut read = || {
            if self.file.metadata()?.len() < self.position {
                self.position = 0;
            }
            let bytes = self.read_at(self.position)?;
            self.position += bytes.len() as u64;
            Ok(bytes)
        };
        read().map_err(|source| LogError::Host {
            path: self.path.clone(),
            source,
        })
    }

    /// Calls `show` with what is printed, until it returns false.
    ///
    /// # Errors
    /// If the log cannot be read or watched.
    pub fn follow(mut self, mut show: impl FnMut(&[u8]) -> bool) -> Result<(), LogError> {
        let watch = || {
            let changes = inotify::init(CreateFlags::CLOEXEC)?;
            inotify::add_watch(&changes, &self.path, WatchFlags::MODIFY)?;
            Ok::<_, io::Error>(changes)
        };
        // Before the first look, so that no change is missed.
        let changes = watch().map_err(|source| self.failed(source))?;
        loop {
            loop {
                let bytes = self.read()?;
                if bytes.is_empty() {
                    break;
                }
                if !show(&bytes) {
                    return Ok(());
                }
            }
            let mut events = [0; 4096];
            match rustix::io::retry_on_intr(|| rustix::io::read(&changes, &mut events)) {
                Ok(_) => {}
                Err(error) => return Err(self.failed(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::thread;

    use super::*;

    /// A log with `text` in it, for the test `test`.
    fn log(test: &str, text: &str) -> PathBuf {
        let own = format!("baton-log-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(own);
        fs::write(&path, text).expect("a file");
        path
    }

    #[test]
    fn the_last_lines_are_shown_of_which_one_may_have_no_end() {
        for text in ["a\nb\nc\n", "a\nb\nc"] {
            let path = log("last", text);
            for (lines, from) in [(0, 6), (1, 4), (2, 2), (3, 0), (usize::MAX, 0)] {
                let mut opened = GuestLog::at(path.clone(), lines).expect("a log");
                let shown = opened.read().expect("bytes");
                let expected = &text.as_bytes()[from.min(text.len())..];
                assert_eq!(shown, expected, "{lines}");
            }
        }
        let path = log("last", "");
        let mut opened = GuestLog::at(path.clone(), 1).expect("a log");
        assert_eq!(opened.read().expect("bytes"), b"");
        fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn no_more_than_the_bound_is_shown_of_a_long_log() {
        let path = log("long", &"x".repeat(MOST as usize + 10));
        let mut opened = GuestLog::at(path.clone(), 1).expect("a log");
        assert_eq!(opened.read().expect("bytes").len(), MOST as usize);
        fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn a_log_is_followed_also_when_it_was_emptied() {
        let path = log("follow", "old\n");
        let opened = GuestLog::at(path.clone(), 0).expect("a log");
        let append = |text: &str| {
            let mut options = OpenOptions::new();
            let mut file = options.append(true).open(&path).expect("a file");
            file.write_all(text.as_bytes()).expect("written");
        };
        let (seen_by, seen) = std::sync::mpsc::channel();
        let follower = thread::spawn(move || {
            opened.follow(|bytes| {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let is_last = text.contains("last");
                seen_by.send(text).expect("the test goes on");
                !is_last
            })
        });
        append("new\n");
        assert_eq!(seen.recv().expect("it follows"), "new\n");
        fs::write(&path, "").expect("emptied");
        append("last\n");
        assert_eq!(seen.recv().expect("it follows"), "last\n");
        follower.join().expect("no panic").expect("no error");
        fs::remove_file(path).expect("it is there");
    }
}
