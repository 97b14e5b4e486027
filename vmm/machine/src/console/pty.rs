//! A console at a pseudo-terminal.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFd;
use rustix::fs::Mode;
use rustix::io::{ioctl_fionbio, ioctl_fionread};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};

use super::endpoint::{Endpoint, is_hung_up, wait_for};
use super::input::{Input, Source};
use super::output_reader::OutputReader;
use super::reserved_terminal;
use super::scrollback::Scrollback;

/// How often to check whether a program has opened the terminal. `inotify` would give notice, but a user may
/// have only 128 of its instances.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long a reader has at the end to take what it has been given.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to check whether it has.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
/// How long nothing must be there to be read until it has: the kernel shows to the reader, and to
/// [`ioctl_fionread`], what its worker has moved there.
const QUIET: Duration = Duration::from_millis(100);

/// A console at a pseudo-terminal. Output goes to the terminal only while a program has it open, so that the
/// next program finds the scrollback and no older rest.
#[derive(Debug)]
pub(super) struct PtyEndpoint {
    master: OwnedFd,
    path: PathBuf,
    /// `None` while no program has the terminal open.
    reader: Option<OutputReader>,
}

impl PtyEndpoint {
    /// A new terminal, which this user alone may open.
    ///
    /// # Errors
    /// If the host refuses one.
    pub(super) fn open() -> io::Result<Self> {
        let master = reserved_terminal::take_or_open()?;
        grantpt(&master)?;
        unlockpt(&master)?;
        ioctl_fionbio(&master, true)?;
        let name = ptsname(&master, Vec::new())?;
        let terminal = Self {
            master,
            path: Path::new(OsStr::from_bytes(name.to_bytes())).to_owned(),
            reader: None,
        };
        // With the usual mode the group `tty` may write to the terminal, and so type to the guest.
        rustix::fs::fchmod(terminal.slave()?, Mode::RUSR | Mode::WUSR)?;
        // When this returns, the terminal has been opened and closed, and counts as hung up.
        terminal.reset()?;
        Ok(terminal)
    }

    /// The path of the terminal.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn slave(&self) -> io::Result<OwnedFd> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        Ok(ioctl_tiocgptpeer(&self.master, flags)?)
    }

    /// Drops output that was not read, and makes the terminal raw: an echo would come back to the guest as
    /// input.
    fn reset(&self) -> io::Result<()> {
        let slave = self.slave()?;
        tcflush(&slave, QueueSelector::IFlush)?;
        let mut modes = tcgetattr(&slave)?;
        modes.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        Ok(())
    }

    /// Notices that a program has opened the terminal, or that the last one has closed it.
    fn check_reader(&mut self, scrollback: &Scrollback) {
        let is_open = !is_hung_up(self.master.as_fd());
        match (&self.reader, is_open) {
            (None, true) => self.reader = Some(OutputReader::new(scrollback)),
            (Some(_), false) => {
                self.reader = None;
                // A terminal that cannot be reset shows an old rest to the next program.
                let _ = self.reset();
            }
            _ => {}
        }
    }
}

impl Endpoint for PtyEndpoint {
    fn files(&self, scrollback: &Scrollback, has_room: bool) -> Vec<PollFd<'_>> {
        let reader = self.reader.iter();
        let file = |reader: &OutputReader| {
            let output = reader.is_behind(scrollback);
            wait_for(self.master.as_fd(), has_room, output)
        };
        reader.map(file).collect()
    }

    fn check_interval(&self) -> Option<Duration> {
        self.reader.is_none().then_some(CHECK_INTERVAL)
    }

    fn serve(&mut self, scrollback: &Scrollback, input: &Input) -> usize {
        self.check_reader(scrollback);
        // What a program has typed and left behind has an end.
        while input.take_from(self.master.as_fd()) == Source::Open && self.reader.is_none() {}
        let Some(reader) = &mut self.reader else {
            return 0;
        };
        // An error means that the last program has closed the terminal, which the next check finds.
        let delivered = reader.deliver(self.master.as_fd(), scrollback);
        delivered.unwrap_or(0)
    }

    fn is_behind(&self, scrollback: &Scrollback) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.is_behind(scrollback))
    }
}

impl Drop for PtyEndpoint {
    /// Waits for the reader, if there is one: what it has not read is lost when the master is closed.
    fn drop(&mut self) {
        let Some(slave) = self.reader.as_ref().and_then(|_| self.slave().ok()) else {
            return;
        };
        let begin = Instant::now();
        let mut last_full = begin;
        while last_full.elapsed() < QUIET && begin.elapsed() < PATIENCE {
            if ioctl_fionread(&slave).is_ok_and(|bytes| bytes > 0) {
                last_full = Instant::now();
            }
            thread::sleep(DRAIN_INTERVAL);
        }
    }
}
