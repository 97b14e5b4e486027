//! Attributes of the calling thread for the host's scheduler, which the C library does not wrap.

use std::fmt;
use std::io;
use std::mem;

/// The calling thread, for the kernel.
const CALLER: libc::pid_t = 0;
/// Size of [`libc::sched_attr`], by which the kernel knows its version.
const SIZE: u32 = mem::size_of::<libc::sched_attr>() as u32;

/// Makes the calling thread `SCHED_DEADLINE`; all times in nanoseconds.
///
/// # Errors
/// `EPERM` without privilege or with an affinity narrower than the root domain, `EBUSY` when the
/// kernel's admission test fails, `EINVAL` below its limits.
pub fn set_deadline_policy(runtime: u64, deadline: u64, period: u64) -> io::Result<()> {
    set_attributes(&libc::sched_attr {
        size: SIZE,
        sched_policy: libc::SCHED_DEADLINE as u32,
        // A deadline thread may only have children if they do not inherit its policy, and KVM makes
        // one (its huge-page recovery task) at a guest's first KVM_RUN. Without this flag, that fails
        // with EAGAIN for ever.
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: runtime,
        sched_deadline: deadline,
        sched_period: period,
    })
}

/// Makes the calling thread `SCHED_FIFO` with this priority, from 1 to 99. Its children are `SCHED_OTHER`.
///
/// # Errors
/// `EPERM` without privilege (`CAP_SYS_NICE`, or a limit `RLIMIT_RTPRIO` of at least the priority), or in a
/// control group without real-time bandwidth; `EINVAL` for another priority.
pub fn set_fifo_policy(priority: u8) -> io::Result<()> {
    set_attributes(&libc::sched_attr {
        size: SIZE,
        sched_policy: libc::SCHED_FIFO as u32,
        // KVM makes a thread at a guest's first KVM_RUN, which must not be before ordinary programs.
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        sched_nice: 0,
        sched_priority: priority.into(),
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    })
}

/// The attributes that a thread had before they were changed.
pub struct FormerScheduling(libc::sched_attr);

impl FormerScheduling {
    /// Those of the calling thread now.
    ///
    /// # Errors
    /// The host's reason.
    pub fn of_this_thread() -> io::Result<Self> {
        attributes().map(Self)
    }

    /// Gives them back to the calling thread, which must be the one that had them. Its children do not inherit
    /// a real-time policy from then on, because taking that back would need a privilege.
    ///
    /// # Errors
    /// The host's reason.
    pub fn restore(&self) -> io::Result<()> {
        set_attributes(&libc::sched_attr {
            size: SIZE,
            sched_flags: self.0.sched_flags | libc::SCHED_FLAG_RESET_ON_FORK as u64,
            ..self.0
        })
    }
}

impl fmt::Debug for FormerScheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attributes = &self.0;
        f.debug_struct("FormerScheduling")
            .field("policy", &attributes.sched_policy)
            .field("nice", &attributes.sched_nice)
            .field("priority", &attributes.sched_priority)
            .finish_non_exhaustive()
    }
}

/// Requests a slice of `slice_ns` for the calling thread from the fair scheduler, which takes it since
/// Linux 6.12. Returns the slice before; `None` if nothing was changed, as for a thread of another
/// policy.
pub fn set_fair_slice(slice_ns: u64) -> Option<u64> {
    let mut attributes = attributes().ok()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return None;
    }
    // All else stays as it is, niceness above all.
    attributes.size = SIZE;
    let before = mem::replace(&mut attributes.sched_runtime, slice_ns);
    set_attributes(&attributes).ok().map(|()| before)
}

fn attributes() -> io::Result<libc::sched_attr> {
    // SAFETY: plain integers, for which zero is valid; sched_getattr writes at most SIZE bytes.
    let (result, attributes) = unsafe {
        let mut attributes: libc::sched_attr = mem::zeroed();
        let number = libc::SYS_sched_getattr;
        let result = libc::syscall(number, CALLER, &raw mut attributes, SIZE, 0);
        (result, attributes)
    };
    match result {
        0 => Ok(attributes),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_attributes(attributes: &libc::sched_attr) -> io::Result<()> {
    let attributes: *const libc::sched_attr = attributes;
    // SAFETY: the kernel reads as many bytes as the structure's `size`, which is its own.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, CALLER, attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_slice_leaves_the_niceness_and_can_be_undone() {
        std::thread::spawn(|| {
            let thread = rustix::thread::gettid();
            rustix::process::setpriority_process(Some(thread), 3).expect("nicer");
            let nice = || rustix::process::getpriority_process(Some(thread)).expect("niceness");
            assert_eq!(nice(), 3);
            // An older kernel, or a policy that came from outside, changes nothing.
            if let Some(before) = set_fair_slice(100_000) {
                assert_eq!(set_fair_slice(before), Some(attributes_slice(100_000)));
            }
            assert_eq!(nice(), 3);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn a_priority_that_is_taken_back_leaves_the_niceness_as_it_was() {
        std::thread::spawn(|| {
            let thread = rustix::thread::gettid();
            rustix::process::setpriority_process(Some(thread), 4).expect("nicer");
            let former = FormerScheduling::of_this_thread().expect("attributes");
            match set_fifo_policy(1) {
                Ok(()) => {
                    let now = attributes().expect("attributes");
                    assert_eq!(now.sched_policy, libc::SCHED_FIFO as u32);
                    assert_eq!(now.sched_priority, 1);
                    former.restore().expect("restored");
                }
                // This user has no privilege for it, and nothing changed.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            }
            let now = attributes().expect("attributes");
            assert_eq!(
                (now.sched_policy, now.sched_nice),
                (libc::SCHED_OTHER as u32, 4)
            );
        })
        .join()
        .expect("thread");
    }

    /// What a kernel reports for a thread that has requested `slice_ns`: that, or nothing before 6.12.
    fn attributes_slice(slice_ns: u64) -> u64 {
        let takes = crate::sys::kernel_version().is_some_and(|version| version >= (6, 12));
        if takes { slice_ns } else { 0 }
    }
}
