//! All signal handling: requests to end as a file to poll, what stops and continues the process, what would
//! end it for nothing, and the kick that interrupts `KVM_RUN`.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGINT, SIGTERM, SIGHUP | ends the run as its own end would, with summary, trace and metrics |
//! | SIGTSTP, SIGCONT | stops and continues; the terminal is given back, and taken again (`tty.rs`) |
//! | SIGQUIT, and what a fault raises | ends the process at once, with the terminal's modes as before (`crash.rs`) |
//! | SIGXFSZ, SIGXCPU, SIGUSR1 and others | nothing (`stray.rs`) |

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

mod crash;
mod stray;

use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::register_signal_handler;

use crate::{rt_signals, tty};

/// The signals that ask the program to end.
const END: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];
/// Those that are left alone where the user wants them ignored: `nohup`, a shell without job control.
const UNLESS_IGNORED: [libc::c_int; 2] = [libc::SIGHUP, libc::SIGTSTP];

/// Sees to it that signals which ask for nothing do not end the program, and that those which end it at
/// once leave a usable terminal. To be called first.
pub fn prepare() {
    stray::ignore();
    crash::install();
}

/// SIGINT, SIGTERM and SIGHUP, blocked in this thread and all that it starts, and readable as a file.
///
/// A SIGHUP that was ignored at the start (`nohup`) stays so. Meanwhile SIGTSTP and SIGCONT stop and continue
/// the process with a usable terminal.
///
/// The file is an eventfd that a thread writes, not a signalfd: whoever polls one of those is woken by
/// every signal to any thread of the process, and here each turn of a vCPU ends with one.
///
/// Dropping it lets them through again with their usual effect, so that a second Ctrl-C ends a
/// program that does not come to an end by itself.
#[derive(Debug)]
pub struct StopSignals {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    before: libc::sigset_t,
}

#[derive(Debug)]
struct Shared {
    event: EventFd,
    closing: AtomicBool,
}

impl StopSignals {
    /// Blocks the signals; to be called before any thread is started.
    ///
    /// # Errors
    /// If the kernel gives no file or no thread.
    pub fn block() -> io::Result<Self> {
        let (set, before) = block_signals()?;
        // From here on dropping it restores the mask.
        let mut signals = Self {
            shared: Arc::new(Shared {
                event: EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK).inspect_err(|_| {
                    restore(&before);
                })?,
                closing: AtomicBool::new(false),
            }),
            thread: None,
            before,
        };
        let shared = Arc::clone(&signals.shared);
        let thread = thread::Builder::new().name("signals".to_owned());
        signals.thread = Some(thread.spawn(move || {
            // It sets modes of a terminal that somebody may just be taking from it.
            let _ = tty::outlive_the_background();
            loop {
                match wait_for(&set) {
                    Some(libc::SIGTSTP) => stop(),
                    Some(libc::SIGCONT) => tty::take_again(),
                    Some(_) if !shared.closing.load(Ordering::Acquire) => {
                        // It fails only when it was written 2^64 times.
                        let _ = shared.event.write(1);
                    }
                    _ => return,
                }
            }
        })?);
        Ok(signals)
    }

    /// Takes the signals that have come: whether there were any.
    #[must_use]
    pub fn take(&self) -> bool {
        self.shared.event.read().is_ok()
    }
}

/// Blocks the signals in this thread: them, and what was blocked before.
fn block_signals() -> io::Result<(libc::sigset_t, libc::sigset_t)> {
    let heard = |signal: &libc::c_int| !stray::is(*signal, libc::SIG_IGN);
    let unless_ignored = UNLESS_IGNORED.into_iter().filter(heard);
    let all = END.into_iter().chain([libc::SIGCONT]).chain(unless_ignored);
    // SAFETY: the sets are initialized by sigemptyset or the kernel before they are used; the signal
    // numbers are valid.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in all {
            libc::sigaddset(&raw mut set, signal);
        }
        let mut before: libc::sigset_t = mem::zeroed();
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) {
            0 => Ok((set, before)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn restore(mask: &libc::sigset_t) {
    // SAFETY: a mask that the kernel gave.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut());
    }
}

/// Waits for one of the signals `set`, which are blocked. `None`: it cannot.
fn wait_for(set: &libc::sigset_t) -> Option<libc::c_int> {
    let mut signal = 0;
    // SAFETY: the set is initialized, and the number is written.
    match unsafe { libc::sigwait(set, &raw mut signal) } {
        0 => Some(signal),
        _ => None,
    }
}

/// Stops the process, as SIGTSTP does by itself, until it is continued.
fn stop() {
    tty::give_back();
    // SAFETY: the sets are initialized by sigemptyset or the kernel before they are used; the signal is a
    // valid one, whose action is the kernel's.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        let mut before: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTSTP);
        // To this thread, where it waits until it is let through.
        libc::raise(libc::SIGTSTP);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, &raw mut before);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
    }
    // Where nobody could continue the process, the kernel does not stop it.
    tty::take_again();
}

impl AsRawFd for StopSignals {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // SAFETY: the thread has not been joined. It has the signal blocked and waits for it.
            unsafe {
                libc::pthread_kill(thread.as_pthread_t(), libc::SIGTERM);
            }
            let _ = thread.join();
        }
        restore(&self.before);
    }
}

/// The signal that interrupts a thread in `KVM_RUN`.
#[must_use]
pub fn kick_signal() -> libc::c_int {
    rt_signals::interrupt()
}

/// Makes [`kick_signal`] interrupt system calls and do nothing else.
///
/// # Errors
/// If the kernel refuses the handler.
pub fn install_kick() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(kick_signal(), nothing).map_err(Into::into)
}

/// Sends [`kick_signal`] to thread `tid` of this process; nothing happens if it is gone.
pub fn kick(tid: libc::pid_t) {
    send(tid, kick_signal());
}

/// Sends `signo` to thread `tid` of this process; nothing happens if it is gone.
pub fn send(tid: libc::pid_t, signo: libc::c_int) {
    // SAFETY: no memory is involved; a thread id of another process is refused by the kernel.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signo) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the file can be read.
    fn readable(signals: &StopSignals) {
        let mut file = libc::pollfd {
            fd: signals.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        assert_eq!(unsafe { libc::poll(&raw mut file, 1, -1) }, 1);
    }

    #[test]
    fn a_signal_is_told_once_and_the_next_program_begins_anew() {
        let signals = StopSignals::block().expect("signals");
        assert!(!signals.take());
        // To the thread, because other tests' threads do not block it.
        let thread = signals.thread.as_ref().expect("a thread").as_pthread_t();
        // SAFETY: a thread that has not been joined.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGINT) }, 0);
        readable(&signals);
        assert!(signals.take());
        assert!(!signals.take());
        drop(signals);
        let signals = StopSignals::block().expect("signals again");
        assert!(!signals.take());
    }
}
