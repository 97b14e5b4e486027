//! The file by which a guest's process reports that one of its halted vCPUs wakes.
//!
//! It is an eventfd of the pool. The guest's process shares its flags and its counter, and could so make a
//! read in the pool wait for ever. So the pool never reads it: the epoll instance reports each write once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// The pool's side.
#[derive(Debug)]
pub struct WakeFile(OwnedFd);

impl WakeFile {
    /// A new file, to be sent with [`PoolMessage::Admitted`](crate::message::PoolMessage::Admitted).
    ///
    /// # Errors
    /// If this process has no file left.
    pub fn new() -> Result<Self, Errno> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Has `epoll` report each wake with `data`. Several at once may be reported as one, so all vCPUs of the
    /// guest that sleep have to be checked.
    ///
    /// # Errors
    /// If the host has no memory left for it.
    pub fn watch(&self, epoll: impl AsFd, data: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(epoll, &self.0, EventData::new_u64(data), flags)
    }
}

impl AsFd for WakeFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The side of the guest's process.
#[derive(Debug)]
pub struct WakeReport(OwnedFd);

impl WakeReport {
    /// Reports through this `file` of the pool.
    #[must_use]
    pub fn new(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Reports that a vCPU has given the answer [`Answer::Woken`](crate::answer::Answer::Woken) before.
    pub fn report(&self) {
        // The kernel refuses only the 2^64th write.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::epoll::{CreateFlags, Event};
    use rustix::time::Timespec;

    use super::*;

    #[test]
    fn each_wake_is_reported_although_the_pool_reads_nothing() {
        let file = WakeFile::new().expect("a file");
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an instance");
        file.watch(&epoll, 5).expect("watched");
        let report = WakeReport::new(file.0.try_clone().expect("the guest's"));
        let no_time = Timespec::try_from(Duration::ZERO).expect("a time");
        let reported = || {
            let mut events: Vec<Event> = Vec::with_capacity(4);
            let room = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&epoll, room, Some(&no_time)).expect("waited");
            let data = events.iter().map(|event| event.data.u64());
            data.collect::<Vec<_>>()
        };
        assert!(reported().is_empty());
        for _ in 0..3 {
            report.report();
            assert_eq!(reported(), [5]);
            assert!(reported().is_empty());
        }
    }
}
