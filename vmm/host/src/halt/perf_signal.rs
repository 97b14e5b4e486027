//! A perf event that sends a signal to the thread that it counts for.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use baton_os::signals::{Disposition, WAKE_TRAP, disposition, install_empty_handler};
use baton_os::sys;
use perf_event_open_sys::bindings::{
    PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, PERIOD, perf_event_attr,
    perf_event_ioctls, perf_sw_ids,
};
use perf_event_open_sys::perf_event_open;

use super::error::HaltSignalError;

/// `fcntl`: the signal of `O_ASYNC`; asm-generic/fcntl.h, not in libc for glibc.
const F_SETSIG: libc::c_int = 10;
/// `fcntl`: the receiver of that signal.
const F_SETOWN_EX: libc::c_int = 15;
/// [`SignalOwner::kind`]: one thread.
const F_OWNER_TID: libc::c_int = 0;

/// `struct f_owner_ex`.
#[repr(C)]
struct SignalOwner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// What a perf event counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counted {
    /// A software event (`PERF_COUNT_SW_*`).
    Software(perf_sw_ids),
    /// A tracepoint, by its id in tracefs.
    Tracepoint(u64),
}

/// An event of the thread that made it.
#[derive(Debug)]
pub(super) struct PerfSignal(OwnedFd);

impl PerfSignal {
    /// Creates an event that sends `signo` to the calling thread at every `period` counts, once it is
    /// switched on. With a `leader` the event is on whenever the leader is.
    ///
    /// # Errors
    /// If `signo` has no handler, or the host does not permit or support the event.
    pub(super) fn open(
        counted: Counted,
        period: u64,
        signo: libc::c_int,
        leader: Option<&Self>,
    ) -> Result<Self, HaltSignalError> {
        if !has_handler(signo) {
            return Err(HaltSignalError::Signal(signo));
        }
        handle_sigio().map_err(host_error("SIGIO"))?;
        let event = open_event(attributes(counted, period), leader)?;
        signal_this_thread(&event, signo).map_err(host_error("fcntl"))?;
        Ok(Self(event))
    }

    /// Creates an event that traps the calling thread at every count, once it is switched on:
    /// [`WAKE_TRAP`] comes by itself when the thread is about to leave the kernel or to enter a guest. That
    /// takes no interrupt, which costs some 10 us on a host that is itself a guest; but the event takes
    /// effect only there.
    ///
    /// # Errors
    /// As [`PerfSignal::open`].
    pub(super) fn trap(counted: Counted) -> Result<Self, HaltSignalError> {
        if disposition(WAKE_TRAP).is_ok_and(|disposition| disposition == Disposition::Default) {
            return Err(HaltSignalError::Signal(WAKE_TRAP));
        }
        let mut attr = attributes(counted, 1);
        attr.set_sigtrap(1);
        // The kernel refuses the event without this.
        attr.set_remove_on_exec(1);
        Ok(Self(open_event(attr, None)?))
    }

    /// Counts so far.
    ///
    /// # Errors
    /// If the kernel does not report the count, as it does for every event of a living thread.
    pub(super) fn count(&self) -> io::Result<u64> {
        let mut count = [0; mem::size_of::<u64>()];
        match rustix::io::read(&self.0, &mut count)? {
            length if length == count.len() => Ok(u64::from_ne_bytes(count)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Signals at every `period` counts from here on.
    ///
    /// # Errors
    /// If the kernel refuses the period.
    pub(super) fn set_period(&self, mut period: u64) -> io::Result<()> {
        // SAFETY: the file is a perf event, and the kernel reads the number.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::c_ulong::from(PERIOD),
                &raw mut period,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Requests one of `ENABLE`, `DISABLE`, `REFRESH`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn control(
        &self,
        request: perf_event_ioctls,
        argument: libc::c_ulong,
    ) -> io::Result<()> {
        // SAFETY: the file is a perf event, and these requests take an integer.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::c_ulong::from(request), argument) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn attributes(counted: Counted, period: u64) -> perf_event_attr {
    let (type_, config) = match counted {
        Counted::Software(id) => (PERF_TYPE_SOFTWARE, u64::from(id)),
        Counted::Tracepoint(id) => (PERF_TYPE_TRACEPOINT, id),
    };
    let mut attr = perf_event_attr {
        type_,
        size: mem::size_of::<perf_event_attr>() as u32,
        config,
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_period = period;
    // exclude_kernel stays off: KVM_RUN is in the kernel. That is what needs CAP_PERFMON.
    attr
}

fn host_error(what: &'static str) -> impl Fn(io::Error) -> HaltSignalError {
    move |source| HaltSignalError::Host { what, source }
}

/// Makes `event` send `signo` to the calling thread.
fn signal_this_thread(event: &OwnedFd, signo: libc::c_int) -> io::Result<()> {
    let file = event.as_raw_fd();
    let owner = SignalOwner {
        kind: F_OWNER_TID,
        id: sys::thread_id(),
    };
    // SAFETY: the file is open; F_SETOWN_EX takes a pointer to f_owner_ex, the others integers.
    let results = unsafe {
        [
            libc::fcntl(file, F_SETSIG, signo),
            libc::fcntl(file, F_SETOWN_EX, &raw const owner),
            libc::fcntl(file, libc::F_SETFL, libc::O_ASYNC),
        ]
    };
    match results {
        [0, 0, 0] => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens an event of the calling thread. It is switched off, or follows its leader.
fn open_event(
    mut attr: perf_event_attr,
    leader: Option<&PerfSignal>,
) -> Result<OwnedFd, HaltSignalError> {
    attr.set_disabled(u64::from(leader.is_none()));
    let group = leader.map_or(-1, |leader| leader.0.as_raw_fd());
    // SAFETY: `attr` has its size in it; 0 and -1: the calling thread, on any CPU; the leader is open.
    let file = unsafe { perf_event_open(&raw mut attr, 0, -1, group, PERF_FLAG_FD_CLOEXEC.into()) };
    if file < 0 {
        return Err(open_error(io::Error::last_os_error()));
    }
    // SAFETY: a file that was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

fn open_error(source: io::Error) -> HaltSignalError {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => HaltSignalError::NotPermitted {
            paranoid: paranoid(),
        },
        Some(libc::ENOSYS | libc::ENOENT | libc::EOPNOTSUPP) => HaltSignalError::Unsupported,
        _ => host_error("perf_event_open")(source),
    }
}

fn paranoid() -> Option<i32> {
    std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Gives SIGIO a handler. The kernel falls back to SIGIO when this user has too many signals pending. Its
/// default action is to end the program, and an ignored signal would not end `KVM_RUN`; one with an empty
/// handler does.
fn handle_sigio() -> io::Result<()> {
    match disposition(libc::SIGIO)? {
        Disposition::Handler => Ok(()),
        Disposition::Default | Disposition::Ignore => install_empty_handler(libc::SIGIO),
    }
}

fn has_handler(signo: libc::c_int) -> bool {
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signo)
        && disposition(signo).is_ok_and(|disposition| disposition == Disposition::Handler)
}
