//! Which host CPUs another thread of this process may use.

use std::io;
use std::mem;

/// CPUs in one word of a set.
const PER_WORD: usize = u64::BITS as usize;
/// Words of a set: 8,192 CPUs, the most that Linux can be built for on x86-64.
const WORDS: usize = 128;

/// A set of host CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Affinity([u64; WORDS]);

impl Affinity {
    /// Where `thread` may run: what it was pinned to, without CPUs that are offline. Nowhere, if it sleeps
    /// and was pinned to CPUs that are.
    ///
    /// # Errors
    /// If there is no such thread.
    pub(super) fn of(thread: libc::pid_t) -> io::Result<Self> {
        let mut words = [0; WORDS];
        // SAFETY: the kernel writes at most the bytes that it is told there are.
        let written = unsafe {
            libc::syscall(
                libc::SYS_sched_getaffinity,
                thread,
                mem::size_of_val(&words),
                words.as_mut_ptr(),
            )
        };
        match written {
            0.. => Ok(Self(words)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// One CPU; none for a number that no host has.
    pub(super) fn only(cpu: usize) -> Self {
        let mut words = [0; WORDS];
        if let Some(word) = words.get_mut(cpu / PER_WORD) {
            *word = 1 << (cpu % PER_WORD);
        }
        Self(words)
    }

    pub(super) fn contains(&self, cpu: usize) -> bool {
        let word = self.0.get(cpu / PER_WORD);
        word.is_some_and(|word| word >> (cpu % PER_WORD) & 1 == 1)
    }

    /// Pins `thread` to these.
    ///
    /// # Errors
    /// If there is no such thread, or none of them may be used.
    pub(super) fn give(&self, thread: libc::pid_t) -> io::Result<()> {
        // SAFETY: the kernel reads the words, whose size is given.
        let done = unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                thread,
                mem::size_of_val(&self.0),
                self.0.as_ptr(),
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    fn what_is_given_to_a_thread_reads_back_and_is_what_that_sees() {
        std::thread::spawn(|| {
            let cpu = sys::affinity().expect("affinity")[0];
            Affinity::only(cpu).give(sys::thread_id()).expect("pinned");
            assert_eq!(sys::affinity().expect("affinity"), [cpu]);
            let seen = Affinity::of(sys::thread_id()).expect("affinity");
            assert_eq!(seen, Affinity::only(cpu));
            assert!(seen.contains(cpu) && !seen.contains(cpu + 1));
            Affinity::only(1 << 20)
                .give(sys::thread_id())
                .expect_err("no such CPU");
        })
        .join()
        .expect("thread");
    }
}
