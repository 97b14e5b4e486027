//! Where threads are pinned, and that they may not be any more.
//!
//! Linux takes a thread off its host CPU when that goes offline or leaves the process's cpuset, and forgets
//! what the thread was pinned to; `taskset` does the same from outside. A thread that remembers where it is
//! pinned, to spare a system call each time, would never go back there.

use std::sync::atomic::{AtomicU64, Ordering};

use baton_os::sys;

/// How often threads of a pool may have lost what they were pinned to.
#[derive(Debug, Default)]
pub(crate) struct Pins(AtomicU64);

/// A moment since which nothing of that kind was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(u64);

impl Pins {
    /// What threads were pinned to before does not hold any more.
    pub(crate) fn lost(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn since(&self) -> Since {
        Since(self.0.load(Ordering::Acquire))
    }
}

/// The host CPU that a thread has pinned itself to.
#[derive(Debug, Default)]
pub(crate) struct Pinned(Option<(usize, Since)>);

impl Pinned {
    /// Pins the calling thread, whose own this is, to `host_cpu`, unless it is. Where the kernel refuses,
    /// it stays where the kernel lets it be, and the next call tries again.
    pub(crate) fn go(&mut self, host_cpu: usize, pins: &Pins) {
        let wanted = (host_cpu, pins.since());
        if self.0 != Some(wanted) {
            self.0 = sys::set_affinity(&[host_cpu]).is_ok().then_some(wanted);
        }
    }

    /// It is pinned to something else now.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_that_was_moved_from_outside_goes_back_when_that_was_noticed() {
        thread::spawn(|| {
            let all = sys::affinity().expect("affinity");
            let (pins, mut pinned) = (Pins::default(), Pinned::default());
            pinned.go(all[0], &pins);
            assert_eq!(sys::affinity().expect("affinity"), all[..1]);
            sys::set_affinity(&all).expect("all of them");
            pinned.go(all[0], &pins);
            assert_eq!(sys::affinity().expect("affinity"), all, "it does not ask");
            pins.lost();
            pinned.go(all[0], &pins);
            assert_eq!(sys::affinity().expect("affinity"), all[..1]);
        })
        .join()
        .expect("thread");
    }
}
