//! Where threads have pinned themselves, and how they notice that they are not pinned there any more.
//!
//! When a host CPU goes offline or leaves the process's cpuset, Linux moves the threads that were pinned
//! there, and forgets that they were; `taskset` does the same from outside. A thread that remembers where it is
//! pinned, to spare a system call each time, would never go back there.

use std::sync::atomic::{AtomicU64, Ordering};

use baton_os::sys;

/// Counts the moments at which threads of a pool may have lost their pinning.
#[derive(Debug, Default)]
pub(crate) struct PinChanges(AtomicU64);

/// A span of time in which no thread's pinning was found lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinEpoch(u64);

impl PinChanges {
    /// A pinning made before may not hold any more.
    pub(crate) fn lost(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// The current epoch.
    pub(crate) fn epoch(&self) -> PinEpoch {
        PinEpoch(self.0.load(Ordering::Acquire))
    }
}

/// The host CPU that a thread has pinned itself to.
#[derive(Debug, Default)]
pub(crate) struct Pinned(Option<(usize, PinEpoch)>);

impl Pinned {
    /// Pins the calling thread, to which `self` belongs, to `host_cpu`, unless it is pinned there. If the
    /// kernel refuses, the thread stays where the kernel lets it run, and the next call tries again.
    pub(crate) fn go_to(&mut self, host_cpu: usize, pins: &PinChanges) {
        let wanted = (host_cpu, pins.epoch());
        if self.0 != Some(wanted) {
            self.0 = sys::set_affinity(&[host_cpu]).is_ok().then_some(wanted);
        }
    }

    /// The thread is pinned to something else now.
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
            let (pins, mut pinned) = (PinChanges::default(), Pinned::default());
            pinned.go_to(all[0], &pins);
            assert_eq!(sys::affinity().expect("affinity"), all[..1]);
            sys::set_affinity(&all).expect("all of them");
            pinned.go_to(all[0], &pins);
            assert_eq!(
                sys::affinity().expect("affinity"),
                all,
                "nothing was noticed yet"
            );
            pins.lost();
            pinned.go_to(all[0], &pins);
            assert_eq!(sys::affinity().expect("affinity"), all[..1]);
        })
        .join()
        .expect("thread");
    }
}
