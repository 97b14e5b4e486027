//! CPU time of a thread of another process, as the kernel accounts for it.
//!
//! The kernel lets a process read the CPU clock of another process, but not of another process's thread. A
//! thread's `schedstat`, kept open, has it, belongs to the thread and not to its id, and needs no
//! permission. The number is exact while the thread is off its CPU, which it is when the executor on that
//! CPU reads it; otherwise it is at most a tick of the host old.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use baton_os::sys;
use vcpu_sched::Ns;

/// The CPU time of a thread is not known.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The thread has ended.
    #[error("the thread has ended")]
    Ended,
    /// The kernel does not account for CPU time, or answers in another form.
    #[error(
        "the host's kernel shows no CPU time in a thread's schedstat; use one with CONFIG_SCHED_INFO"
    )]
    Form,
    /// The host refused.
    #[error("the host refused to show the CPU time of a thread: {0}")]
    Host(io::Error),
}

/// What a thread has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTimes {
    /// Its CPU time, ns.
    pub ran: Ns,
    /// Time in which it was ready and others had its CPU, ns.
    pub waited: Ns,
}

/// The CPU time of one thread of another process.
#[derive(Debug)]
pub struct ForeignThreadClock {
    schedstat: File,
    /// What was read last, ns.
    read_at: Ns,
}

impl ForeignThreadClock {
    /// The clock of the thread to which the file `schedstat` belongs.
    pub(crate) fn new(schedstat: File) -> Self {
        Self {
            schedstat,
            read_at: 0,
        }
    }

    /// The clock of the calling thread, which others may read, too.
    ///
    /// # Errors
    /// If the host does not show it.
    pub fn of_this_thread() -> io::Result<Self> {
        File::open(sys::schedstat_path()).map(Self::new)
    }

    /// CPU time of the thread so far, ns.
    ///
    /// # Errors
    /// If the thread has ended, or the kernel does not account for it.
    pub fn ran_ns(&self) -> Result<Ns, ClockError> {
        self.times().map(|times| times.ran)
    }

    /// The thread's times so far.
    ///
    /// # Errors
    /// If the thread has ended, or the kernel does not account for it.
    pub fn times(&self) -> Result<ThreadTimes, ClockError> {
        // Three numbers of at most 20 digits.
        let mut line = [0; 64];
        let length =
            self.schedstat
                .read_at(&mut line, 0)
                .map_err(|error| match error.raw_os_error() {
                    Some(libc::ESRCH) => ClockError::Ended,
                    _ => ClockError::Host(error),
                })?;
        parse(&line[..length]).ok_or(ClockError::Form)
    }

    /// CPU time since the last call, or all of it at the first one, ns.
    ///
    /// # Errors
    /// As [`ForeignThreadClock::ran_ns`]; the next call then reports the time.
    pub fn take_ns(&mut self) -> Result<Ns, ClockError> {
        let now = self.ran_ns()?;
        Ok(now.saturating_sub(std::mem::replace(&mut self.read_at, now)))
    }
}

/// The first two of the numbers.
fn parse(line: &[u8]) -> Option<ThreadTimes> {
    let mut numbers = line.split(|&byte| byte == b' ');
    let mut next = || std::str::from_utf8(numbers.next()?).ok()?.parse().ok();
    let (ran, waited) = (next()?, next()?);
    Some(ThreadTimes { ran, waited })
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn own() -> ForeignThreadClock {
        ForeignThreadClock::of_this_thread().expect("this thread")
    }

    #[test]
    fn only_a_line_that_begins_with_two_numbers_is_that_of_a_thread() {
        let (ran, waited) = (123, 4);
        assert_eq!(parse(b"123 4 5\n"), Some(ThreadTimes { ran, waited }));
        for line in ["", " 1 2", "1", "x 1", "-1 2 3", "99999999999999999999 1 1"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_readings_of_a_sleeping_thread_add_up_to_its_cpu_time() {
        let (work, for_thread) = mpsc::channel::<u32>();
        let (done, from_thread) = mpsc::channel();
        let thread = thread::spawn(move || {
            done.send((own(), 0)).expect("received");
            for rounds in for_thread {
                (0..rounds).for_each(|_| std::hint::spin_loop());
                let file = own();
                done.send((file, 1)).expect("received");
            }
        });
        let (mut clock, _) = from_thread.recv().expect("a clock");
        let mut sum = 0;
        for rounds in [10_000, 0, 100_000] {
            work.send(rounds).expect("it waits");
            from_thread.recv().expect("done");
            sum += clock.take_ns().expect("it lives");
        }
        assert_eq!(sum, clock.read_at);
        assert!(sum > 0 && sum <= clock.ran_ns().expect("it lives"));
        drop(work);
        thread.join().expect("it ends");
    }

    #[test]
    fn a_thread_that_has_ended_has_no_time_any_more() {
        let clock = thread::spawn(own).join().expect("a clock");
        // The thread is gone for the kernel a moment after it is gone for those who join it.
        let ended = loop {
            match clock.ran_ns() {
                Ok(_) => thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, ClockError::Ended));
    }
}
