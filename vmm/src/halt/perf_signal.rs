//! A perf software event that sends a signal to the thread that it counts for.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use perf_event_open_sys::bindings::{
    PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE, PERIOD, perf_event_attr, perf_event_ioctls,
    perf_sw_ids,
};
use perf_event_open_sys::perf_event_open;

use super::HaltSignalError;
use crate::sys;

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

/// An event of the thread that made it.
#[derive(Debug)]
pub(super) struct PerfSignal(OwnedFd);

impl PerfSignal {
    /// An event that sends `signo` to the calling thread at every `period` counts of the software
    /// event `config` (`PERF_COUNT_SW_*`), once it is switched on.
    pub(super) fn open(
        config: perf_sw_ids,
        period: u64,
        signo: libc::c_int,
    ) -> Result<Self, HaltSignalError> {
        if !has_handler(signo) {
            return Err(HaltSignalError::Signal(signo));
        }
        let host = |what| move |source| HaltSignalError::Host { what, source };
        outlive_sigio().map_err(host("SIGIO"))?;
        let event = open_event(config, period)?;
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

/// The event of the calling thread, switched off.
fn open_event(config: perf_sw_ids, period: u64) -> Result<OwnedFd, HaltSignalError> {
    let mut attr = perf_event_attr {
        type_: PERF_TYPE_SOFTWARE,
        size: mem::size_of::<perf_event_attr>() as u32,
        config: u64::from(config),
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_period = period;
    attr.set_disabled(1);
    // exclude_kernel stays off: KVM_RUN is in the kernel. That is what needs CAP_PERFMON.

    // SAFETY: `attr` says its size; 0 and -1: the calling thread, on any CPU, in no group.
    let file = unsafe { perf_event_open(&raw mut attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC.into()) };
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

/// The kernel falls back to SIGIO when this user has too many signals pending, and its default
/// action is to end the program. A halt that goes unnoticed is the lesser evil.
fn outlive_sigio() -> io::Result<()> {
    if disposition(libc::SIGIO)? == libc::SIG_DFL {
        // SAFETY: ignoring a signal that nobody has asked for.
        if unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
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
