//! The signals by which a user ends, stops and continues the program, as a file to poll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use vmm_sys_util::signal::Killable;

use super::disposition::is_ignored;
use super::mask::{self, SavedMask};
use super::{crash, ignored};
use crate::event::Event;
use crate::tty;

/// The signals that this thread takes in any case: those that request the end, and the continuation.
const ALWAYS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGCONT];
/// The signals that stay ignored where they were at the start: `nohup`, a shell without job control.
const UNLESS_IGNORED: [libc::c_int; 2] = [libc::SIGHUP, libc::SIGTSTP];

/// Makes signals that request nothing harmless, and makes those that end the program at once leave a usable
/// terminal. To be called first.
pub fn prepare() {
    ignored::ignore();
    crash::install();
}

/// SIGINT, SIGTERM and SIGHUP, blocked in this thread and in all threads that it starts, and readable as a
/// file.
///
/// A SIGHUP that was ignored at the start (`nohup`) stays ignored. Meanwhile SIGTSTP and SIGCONT stop and
/// continue the process with a usable terminal.
///
/// The file is an eventfd that a thread writes, not a signalfd: a thread that polls a signalfd is woken by
/// every signal to any thread of the process, and here each run of a vCPU ends with a signal.
///
/// Dropping this lets the signals through again with their usual effect, so that a second Ctrl-C ends a
/// program that does not come to an end by itself.
#[derive(Debug)]
pub struct StopSignals {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    before: SavedMask,
}

#[derive(Debug)]
struct Shared {
    event: Event,
    closing: AtomicBool,
    /// Whether a signal has requested the end since [`StopSignals::take`].
    ends: AtomicBool,
    /// Whether SIGHUP requests that settings are read again, and not the end.
    hangup_reloads: bool,
    /// Whether it has, since [`StopSignals::take_reload`].
    reloads: AtomicBool,
    /// Whether the process was continued since [`StopSignals::take_continued`].
    continued: AtomicBool,
}

impl StopSignals {
    /// Blocks the signals; to be called before any thread is started.
    ///
    /// # Errors
    /// If the process has no file left, or no thread can be started.
    pub fn block() -> io::Result<Self> {
        Self::block_with(false)
    }

    /// The same for a service: SIGHUP requests that it reads its settings again, also if it was ignored at the start.
    ///
    /// # Errors
    /// As [`StopSignals::block`].
    pub fn block_for_service() -> io::Result<Self> {
        Self::block_with(true)
    }

    fn block_with(hangup_reloads: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            event: Event::new()?,
            closing: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            hangup_reloads,
            reloads: AtomicBool::new(false),
            continued: AtomicBool::new(false),
        });
        let mut signals = signals_to_take();
        if hangup_reloads && !signals.contains(&libc::SIGHUP) {
            signals.push(libc::SIGHUP);
        }
        // From here on dropping this restores the mask.
        let mut this = Self {
            shared: Arc::clone(&shared),
            thread: None,
            before: mask::block(&signals)?,
        };
        let thread = thread::Builder::new().name("signals".to_owned());
        this.thread = Some(thread.spawn(move || take_signals(&signals, &shared))?);
        Ok(this)
    }

    /// Whether a signal has requested the end since the last call.
    #[must_use]
    pub fn take(&self) -> bool {
        // Before the flag, which is set before the event.
        self.shared.event.take();
        self.shared.ends.swap(false, Ordering::AcqRel)
    }

    /// Whether SIGHUP has requested since the last call that settings are read again.
    #[must_use]
    pub fn take_reload(&self) -> bool {
        self.shared.reloads.swap(false, Ordering::AcqRel)
    }

    /// Whether the process was continued since the last call, after it had been stopped. A shell may have used
    /// the terminal meanwhile.
    #[must_use]
    pub fn take_continued(&self) -> bool {
        self.shared.continued.swap(false, Ordering::AcqRel)
    }
}

fn signals_to_take() -> Vec<libc::c_int> {
    let unless_ignored = UNLESS_IGNORED.into_iter().filter(|&s| !is_ignored(s));
    ALWAYS.into_iter().chain(unless_ignored).collect()
}

/// The thread: takes the signals until [`StopSignals`] is dropped.
fn take_signals(signals: &[libc::c_int], shared: &Shared) {
    // This thread sets the modes of a terminal that another process may just be taking away.
    let _ = tty::outlive_the_background();
    loop {
        match mask::wait_for(signals) {
            Ok(libc::SIGTSTP) => suspend(),
            Ok(libc::SIGCONT) => {
                tty::take_again();
                shared.continued.store(true, Ordering::Release);
            }
            Ok(signal) if !shared.closing.load(Ordering::Acquire) => {
                match signal == libc::SIGHUP && shared.hangup_reloads {
                    true => shared.reloads.store(true, Ordering::Release),
                    false => shared.ends.store(true, Ordering::Release),
                }
                shared.event.set();
            }
            _ => return,
        }
    }
}

/// Stops the process, as SIGTSTP does by default, until it is continued.
pub fn suspend() {
    tty::give_back();
    // To this thread, where the signal is pending until it is let through.
    // SAFETY: a valid signal, whose action is the kernel's.
    unsafe { libc::raise(libc::SIGTSTP) };
    if let Ok(before) = mask::unblock(&[libc::SIGTSTP]) {
        before.restore();
    }
    // Where nobody could continue the process, the kernel does not stop it.
    tty::take_again();
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
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
            // The thread has the signal blocked and waits for it. It has not been joined, so the signal
            // is not refused.
            let _ = thread.kill(libc::SIGTERM);
            let _ = thread.join();
        }
        self.before.restore();
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::signal::get_blocked_signals;

    use super::*;
    use crate::event::wait_readable;

    #[test]
    fn a_signal_is_reported_once_and_the_next_instance_begins_without_it() {
        let signals = StopSignals::block().expect("signals");
        assert!(!signals.take());
        // To the thread, because other tests' threads do not block it.
        let thread = signals.thread.as_ref().expect("a thread");
        thread.kill(libc::SIGINT).expect("sent");
        wait_readable(&[signals.as_fd()], None).expect("readable");
        assert!(signals.take());
        assert!(!signals.take());
        drop(signals);
        let signals = StopSignals::block().expect("signals again");
        assert!(!signals.take());
    }

    #[test]
    fn a_hangup_makes_a_service_read_its_settings_again_and_does_not_end_it() {
        // On a thread of its own, whose mask the thread of the signals inherits.
        let test = || {
            let signals = StopSignals::block_for_service().expect("signals");
            let thread = signals.thread.as_ref().expect("a thread");
            thread.kill(libc::SIGHUP).expect("sent");
            wait_readable(&[signals.as_fd()], None).expect("readable");
            assert!(!signals.take() && signals.take_reload() && !signals.take_reload());
            thread.kill(libc::SIGTERM).expect("sent");
            wait_readable(&[signals.as_fd()], None).expect("readable");
            assert!(signals.take() && !signals.take_reload());
        };
        thread::spawn(test).join().expect("no panic");
    }

    #[test]
    fn the_signals_have_their_usual_effect_again_after_the_last_use() {
        // On a thread of its own, because each thread has its own mask.
        let test = || {
            let blocked = || get_blocked_signals().expect("the mask");
            let before = blocked();
            let signals = StopSignals::block().expect("signals");
            assert!(ALWAYS.iter().all(|signal| blocked().contains(signal)));
            drop(signals);
            assert_eq!(blocked(), before);
        };
        thread::spawn(test).join().expect("no panic");
    }
}
