//! Pseudo-terminals that a process has opened before it entered a sandbox in which it cannot open one: the kernel finds a
//! new one's file system beside `/dev/ptmx`, which no sandbox shows by itself.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::pty::{OpenptFlags, openpt};

static RESERVED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Opens a pseudo-terminal for a console that this process will have.
///
/// # Errors
/// If the host refuses one.
pub fn reserve_terminal() -> io::Result<()> {
    let master = open()?;
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    reserved.push(master);
    Ok(())
}

/// A pseudo-terminal: one that was reserved, or a new one.
///
/// # Errors
/// If the host refuses one.
pub(super) fn take_or_open() -> io::Result<OwnedFd> {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    reserved.pop().map_or_else(open, Ok)
}

fn open() -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(openpt(flags)?)
}
