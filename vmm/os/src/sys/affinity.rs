//! Which host CPUs a thread may use, on hosts of any size: the kernel's sets of CPUs are as long as the
//! host needs, and `cpu_set_t` of the C library ends at 1,024.

use std::io;
use std::mem;

/// CPUs in one word of a set.
const PER_WORD: usize = u64::BITS as usize;
/// Words of the first set that is offered to the kernel: 1,024 CPUs.
const FIRST_WORDS: usize = 16;
/// Words of the longest: a million CPUs, 16 times what Linux can be built for.
const MOST_WORDS: usize = 16_384;
/// The calling thread, to the kernel.
const CALLER: libc::pid_t = 0;

/// Host CPUs that the calling thread may use, ascending.
///
/// # Errors
/// If the kernel does not report them.
pub fn affinity() -> io::Result<Vec<usize>> {
    affinity_of(CALLER)
}

/// Host CPUs that the thread `tid` of this process may use, ascending: those that it was pinned to, without
/// CPUs that are offline. None, if it sleeps and was pinned to CPUs that are.
///
/// # Errors
/// If there is no such thread.
pub fn affinity_of(tid: libc::pid_t) -> io::Result<Vec<usize>> {
    fill(|words| {
        // SAFETY: the kernel writes whole words, and at most as many bytes as the size that it is given.
        let written = unsafe {
            libc::syscall(
                libc::SYS_sched_getaffinity,
                tid,
                mem::size_of_val(words),
                words.as_mut_ptr(),
            )
        };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    })
}

/// Pins the calling thread to `cpus`. The kernel leaves out those that the host does not have and those
/// outside of this process's cpuset.
///
/// # Errors
/// If none of them may be used.
pub fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    set_affinity_of(CALLER, cpus)
}

/// [`set_affinity`] for the thread `tid` of this process.
///
/// # Errors
/// If none of them may be used, or there is no such thread.
pub fn set_affinity_of(tid: libc::pid_t, cpus: &[usize]) -> io::Result<()> {
    let words = words_of(cpus);
    // SAFETY: the kernel reads the words, whose size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            tid,
            mem::size_of_val(&*words),
            words.as_ptr(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The CPUs of a set that `write_set` writes, which returns the number of bytes that it wrote. It is called
/// again with a longer set as long as it reports that there is too little room (`EINVAL`).
fn fill(mut write_set: impl FnMut(&mut [u64]) -> io::Result<usize>) -> io::Result<Vec<usize>> {
    let mut words = vec![0; FIRST_WORDS];
    loop {
        match write_set(&mut words) {
            Ok(bytes) => {
                words.truncate(bytes.div_ceil(mem::size_of::<u64>()));
                return Ok(cpus_of(&words));
            }
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL) && words.len() < MOST_WORDS =>
            {
                words.resize(words.len() * 2, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

fn cpus_of(words: &[u64]) -> Vec<usize> {
    (0..words.len() * PER_WORD)
        .filter(|cpu| words[cpu / PER_WORD] >> (cpu % PER_WORD) & 1 == 1)
        .collect()
}

fn words_of(cpus: &[usize]) -> Vec<u64> {
    let highest = cpus.iter().max().copied().unwrap_or(0);
    let mut words = vec![0; highest / PER_WORD + 1];
    for cpu in cpus {
        words[cpu / PER_WORD] |= 1 << (cpu % PER_WORD);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_reads_back_what_was_set() {
        std::thread::spawn(|| {
            let all = affinity().expect("affinity");
            set_affinity(&all[..1]).expect("pinned");
            assert_eq!(affinity().expect("affinity"), all[..1]);
            set_affinity(&[]).expect_err("no CPU at all");
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn another_thread_is_pinned_and_sees_it() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            sender.send(crate::sys::thread_id()).expect("received");
            let _ = wait.recv();
            affinity().expect("affinity")
        });
        let tid = receiver.recv().expect("an id");
        let cpu = affinity_of(tid).expect("affinity")[0];
        set_affinity_of(tid, &[cpu]).expect("pinned");
        assert_eq!(affinity_of(tid).expect("affinity"), [cpu]);
        set_affinity_of(tid, &[1 << 16]).expect_err("no such CPU");
        drop(go_on);
        assert_eq!(thread.join().expect("thread"), [cpu]);
    }

    #[test]
    fn a_host_with_more_cpus_than_the_first_set_gets_a_longer_one() {
        for possible in [1, 1_024, 1_025, 2_048, 8_192] {
            let own = [0, possible - 1];
            let filled = fill(|words| {
                let needed = words_of(&[possible - 1]);
                let room = words.get_mut(..needed.len());
                let room = room.ok_or(io::Error::from_raw_os_error(libc::EINVAL))?;
                room.copy_from_slice(&words_of(&own));
                Ok(mem::size_of_val(&*needed))
            });
            let mut expected = own.to_vec();
            expected.dedup();
            assert_eq!(filled.expect("a set"), expected);
        }
    }

    #[test]
    fn a_kernel_that_never_fills_a_set_gets_no_endless_series_of_them() {
        let mut calls = 0;
        let filled = fill(|_| {
            calls += 1;
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        });
        assert!(filled.is_err());
        assert_eq!(calls, (MOST_WORDS / FIRST_WORDS).ilog2() + 1);
    }

    #[test]
    fn no_cpu_of_a_set_is_lost_however_high_its_number() {
        for cpus in [vec![0], vec![63, 64], vec![5, 1_023, 1_024, 2_047, 8_191]] {
            assert_eq!(cpus_of(&words_of(&cpus)), cpus);
        }
    }
}
