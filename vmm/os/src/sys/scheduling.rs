//! Attributes of threads for the host's scheduler, most of which the C library does not wrap.

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

/// The policy of a thread for the host's scheduler, as far as anything depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedPolicy {
    /// `SCHED_OTHER` or `SCHED_BATCH`, with any niceness.
    Ordinary,
    /// `SCHED_IDLE`: it runs where nothing else wants to.
    Idle,
    /// `SCHED_FIFO`.
    Fifo {
        /// From 1 to 99.
        priority: u8,
        /// Whether its children are ordinary.
        reset_on_fork: bool,
    },
    /// `SCHED_RR` or `SCHED_DEADLINE`.
    RealTime,
}

/// The policy of the `thread` with this id; 0: the calling one.
///
/// # Errors
/// `ESRCH` if there is no such thread.
pub fn policy_of(thread: libc::pid_t) -> io::Result<SchedPolicy> {
    let attributes = attributes_of(thread)?;
    let reset_on_fork = attributes.sched_flags & libc::SCHED_FLAG_RESET_ON_FORK as u64 != 0;
    Ok(match attributes.sched_policy as i32 {
        libc::SCHED_OTHER | libc::SCHED_BATCH => SchedPolicy::Ordinary,
        libc::SCHED_IDLE => SchedPolicy::Idle,
        libc::SCHED_FIFO => SchedPolicy::Fifo {
            // The kernel has priorities up to 99.
            priority: attributes.sched_priority as u8,
            reset_on_fork,
        },
        _ => SchedPolicy::RealTime,
    })
}

/// Makes the `thread` with this id, which may be one of another process, `SCHED_FIFO` with this priority, from 1 to 99.
/// Its niceness is kept for later, and its children are `SCHED_OTHER`.
///
/// # Errors
/// As [`set_fifo_policy`], and `ESRCH` if there is no such thread. For a thread of another user, the limit of that
/// thread's process counts, not that of this one.
pub fn set_fifo_policy_of(thread: libc::pid_t, priority: u8) -> io::Result<()> {
    set_policy_of(
        thread,
        libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
        priority,
    )
}

/// Makes the `thread` with this id `SCHED_OTHER` again after [`set_fifo_policy_of`], with the niceness that it had. 0
/// is the calling thread, which needs no privilege for that.
///
/// # Errors
/// `ESRCH` if there is no such thread, `EPERM` for that of another user without `CAP_SYS_NICE`.
pub fn end_fifo_policy_of(thread: libc::pid_t) -> io::Result<()> {
    // Without a privilege the flag cannot be taken back, and it does no harm.
    set_policy_of(thread, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0)
}

/// By the older of the two calls, which keeps the niceness.
fn set_policy_of(thread: libc::pid_t, policy: libc::c_int, priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority.into(),
    };
    // SAFETY: the kernel reads the parameters, which live until the call returns.
    match unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
    attributes_of(CALLER)
}

fn attributes_of(thread: libc::pid_t) -> io::Result<libc::sched_attr> {
    // SAFETY: plain integers, for which zero is valid; sched_getattr writes at most SIZE bytes.
    let (result, attributes) = unsafe {
        let mut attributes: libc::sched_attr = mem::zeroed();
        let number = libc::SYS_sched_getattr;
        let result = libc::syscall(number, thread, &raw mut attributes, SIZE, 0);
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

    #[test]
    fn another_thread_gets_a_priority_and_loses_it_with_its_niceness_as_before() {
        let (send_id, id) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = rustix::thread::gettid();
            rustix::process::setpriority_process(Some(own), 4).expect("nicer");
            send_id.send(crate::sys::thread_id()).expect("received");
            let _ = wait.recv();
            // No privilege is needed to leave a priority.
            end_fifo_policy_of(CALLER).expect("left");
            rustix::process::getpriority_process(Some(own)).expect("niceness")
        });
        let id = id.recv().expect("an id");
        assert_eq!(policy_of(id).expect("it runs"), SchedPolicy::Ordinary);
        match set_fifo_policy_of(id, 2) {
            Ok(()) => {
                let fifo = SchedPolicy::Fifo {
                    priority: 2,
                    reset_on_fork: true,
                };
                assert_eq!(policy_of(id).expect("it runs"), fifo);
                end_fifo_policy_of(id).expect("taken back");
                assert_eq!(policy_of(id).expect("it runs"), SchedPolicy::Ordinary);
                set_fifo_policy_of(id, 3).expect("as before");
            }
            // This user has no privilege for it, and nothing changed.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        drop(end);
        assert_eq!(thread.join().expect("it ends"), 4);
    }

    /// What a kernel reports for a thread that has requested `slice_ns`: that, or nothing before 6.12.
    fn attributes_slice(slice_ns: u64) -> u64 {
        let takes = crate::sys::kernel_version().is_some_and(|version| version >= (6, 12));
        if takes { slice_ns } else { 0 }
    }
}
