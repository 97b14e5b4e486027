//! What a console offers to the programs that attach to it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::input::Input;
use super::scrollback::Scrollback;

/// The files through which programs read what a guest prints, and type. Nothing here waits.
pub(super) trait Endpoint: Send {
    /// The files to wait for before the next [`Self::serve`], if the guest has room for input or not.
    fn files(&self, scrollback: &Scrollback, has_room: bool) -> Vec<PollFd<'_>>;

    /// The longest wait, where something happens of which no file gives notice.
    fn check_interval(&self) -> Option<Duration>;

    /// Moves output and input as far as that needs no wait, and returns the number of bytes of output.
    fn serve(&mut self, scrollback: &Scrollback, input: &Input) -> usize;

    /// Whether an attached program has not been given all output.
    fn is_behind(&self, scrollback: &Scrollback) -> bool;
}

/// The file of one program, and what to wait for: input, and room for output.
pub(super) fn wait_for(file: BorrowedFd<'_>, input: bool, output: bool) -> PollFd<'_> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, input);
    flags.set(PollFlags::OUT, output);
    PollFd::from_borrowed_fd(file, flags)
}

/// Whether the program at the other end of `file` is gone.
pub(super) fn is_hung_up(file: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut files = [wait_for(file, false, false)];
    let polled = poll(&mut files, Some(&now));
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    polled.is_ok() && files[0].revents().intersects(gone)
}
