//! A perf event that sends a signal to the thread that it counts for.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use baton_os::sys;
use perf_event_open_sys::bindings::{
    PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, PERIOD, perf_event_attr,
    perf_event_ioctls, perf_sw_ids,
};
use perf_event_open_sys::perf_event_open;
use vmm_sys_util::signal::register_signal_handler;

use super::HaltSignalError;

/// `fcntl`: the signal of `O_ASYNC`; asm-generic/fcntl.h, not in libc for glibc.
const F_SETSIG: libc::c_int = 10;
/// `fcntl`: who gets it.
const F_SETOWN_EX: libc::c_int = 15;
/// [`Owner::kind`]: one thread.
const F_OWNER_TID: libc::c_int = 0;

/// `struct f_owner_ex`.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// What is counted.
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
    /// An event that sends `signo` to the calling thread at every `period` counts, once it is switched
    /// on. With a `leader` it is on whenever the leader is.
    pub(super) fn open(
        counted: Counted,
        period: u64,
        signo: libc::c_int,
        leader: Option<&Self>,
    ) -> Result<Self, HaltSignalError> {
        if !has_handler(signo) {
            return Err(HaltSignalError::Signal(signo));
        }
        let host = |what| move |source| HaltSignalError::Host { what, source };
        outlive_sigio().map_err(host("SIGIO"))?;
        let event = open_event(attributes(counted, period), leader)?;
        let owner = Owner {
            kind: F_OWNER_TID,
            id: sys::thread_id(),
        };
        // SAFETY: the file is open; F_SETOWN_EX takes a pointer to f_owner_ex, the others integers.
        let (signal, own, flags) = unsafe {
            let file = event.as_raw_fd();
            (
                libc::fcntl(file, F_SETSIG, signo),
                libc::fcntl(file, F_SETOWN_EX, &raw const owner),
                libc::fcntl(file, libc::F_SETFL, libc::O_ASYNC),
            )
        };
        if signal != 0 || own != 0 || flags != 0 {
            return Err(host("fcntl")(io::Error::last_os_error()));
        }
        Ok(Self(event))
    }

    /// An event that traps the calling thread at every count, once it is switched on: `SIGTRAP` comes by
    /// itself when the thread is about to leave the kernel or to enter a guest. That takes no interrupt,
    /// which on a host that is itself a guest costs some 10 us; but it is noticed only there.
    pub(super) fn trap(counted: Counted) -> Result<Self, HaltSignalError> {
        if disposition(libc::SIGTRAP).is_ok_and(|handler| handler == libc::SIG_DFL) {
            return Err(HaltSignalError::Signal(libc::SIGTRAP));
        }
        let mut attr = attributes(counted, 1);
        attr.set_sigtrap(1);
        // Without, the kernel refuses it.
        attr.set_remove_on_exec(1);
        Ok(Self(open_event(attr, None)?))
    }

    /// Counts so far.
    pub(super) fn count(&self) -> io::Result<u64> {
        let mut count = 0u64;
        // SAFETY: the buffer has the size that is given, which is what an event without a read
        // format gives.
        let read = unsafe {
            libc::read(
                self.0.as_raw_fd(),
                (&raw mut count).cast(),
                mem::size_of::<u64>(),
            )
        };
        if read != mem::size_of::<u64>() as isize {
            return Err(io::Error::last_os_error());
        }
        Ok(count)
    }

    /// Signals at every `period` counts from here on.
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

    /// One of `ENABLE`, `DISABLE`, `REFRESH`.
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

/// The event of the calling thread, switched off, or with a leader, as that one is.
fn open_event(
    mut attr: perf_event_attr,
    leader: Option<&PerfSignal>,
) -> Result<OwnedFd, HaltSignalError> {
    attr.set_disabled(u64::from(leader.is_none()));
    let group = leader.map_or(-1, |leader| leader.0.as_raw_fd());
    // SAFETY: `attr` says its size; 0 and -1: the calling thread, on any CPU; the leader is open.
    let file = unsafe { perf_event_open(&raw mut attr, 0, -1, group, PERF_FLAG_FD_CLOEXEC.into()) };
    if file < 0 {
        let source = io::Error::last_os_error();
        return Err(match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => HaltSignalError::NotPermitted {
                paranoid: paranoid(),
            },
            Some(libc::ENOSYS | libc::ENOENT | libc::EOPNOTSUPP) => HaltSignalError::Unsupported,
            _ => HaltSignalError::Host {
                what: "perf_event_open",
                source,
            },
        });
    }
    // SAFETY: a file that was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

fn paranoid() -> Option<i32> {
    std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The kernel falls back to SIGIO when this user has too many signals pending. Its default action is
/// to end the program; ignored, it would not end `KVM_RUN`; with a handler that does nothing it does.
fn outlive_sigio() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    if [libc::SIG_DFL, libc::SIG_IGN].contains(&disposition(libc::SIGIO)?) {
        register_signal_handler(libc::SIGIO, nothing)?;
    }
    Ok(())
}

fn has_handler(signo: libc::c_int) -> bool {
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signo)
        && disposition(signo)
            .is_ok_and(|handler| handler != libc::SIG_DFL && handler != libc::SIG_IGN)
}

fn disposition(signo: libc::c_int) -> io::Result<libc::sighandler_t> {
    // SAFETY: with no new action, sigaction only writes the old one.
    unsafe {
        let mut old: libc::sigaction = mem::zeroed();
        if libc::sigaction(signo, ptr::null(), &raw mut old) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(old.sa_sigaction)
    }
}
