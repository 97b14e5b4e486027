//! Signals that a thread blocks.

use std::io;
use std::mem;

use vmm_sys_util::signal::create_sigset;

/// The signals that a thread blocked at a moment.
#[derive(Clone, Copy, Debug)]
pub struct SavedMask(libc::sigset_t);

impl SavedMask {
    /// Makes the calling thread block these signals and no others.
    pub fn restore(&self) {
        // The kernel takes every mask that it has given.
        let _ = change(libc::SIG_SETMASK, &self.0);
    }
}

/// Blocks `signals` in the calling thread beside those that it blocks already. Returns the mask before.
///
/// # Errors
/// If one of them is not a valid signal.
pub fn block(signals: &[libc::c_int]) -> io::Result<SavedMask> {
    change(libc::SIG_BLOCK, &set_of(signals)?)
}

/// Lets `signals` through to the calling thread. Returns the mask before.
///
/// # Errors
/// If one of them is not a valid signal.
pub fn unblock(signals: &[libc::c_int]) -> io::Result<SavedMask> {
    change(libc::SIG_UNBLOCK, &set_of(signals)?)
}

/// Waits for one of `signals`, which the calling thread blocks, and takes it.
///
/// # Errors
/// If one of them is not a valid signal.
pub fn wait_for(signals: &[libc::c_int]) -> io::Result<libc::c_int> {
    let set = set_of(signals)?;
    let mut signal = 0;
    // SAFETY: the set is initialized, and the number is written.
    match unsafe { libc::sigwait(&raw const set, &raw mut signal) } {
        0 => Ok(signal),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn set_of(signals: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    create_sigset(signals).map_err(Into::into)
}

fn change(how: libc::c_int, set: &libc::sigset_t) -> io::Result<SavedMask> {
    // SAFETY: an all-zero set is valid, and the kernel writes it; `set` is initialized.
    unsafe {
        let mut before: libc::sigset_t = mem::zeroed();
        match libc::pthread_sigmask(how, set, &raw mut before) {
            0 => Ok(SavedMask(before)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::signal::{SIGRTMIN, get_blocked_signals};

    use super::*;

    #[test]
    fn a_mask_is_restored_as_it_was() {
        std::thread::spawn(|| {
            let signals = [SIGRTMIN() + 8, SIGRTMIN() + 9];
            let blocked = || get_blocked_signals().expect("the mask");
            let before = blocked();
            let saved = block(&signals[..1]).expect("blocked");
            assert!(blocked().contains(&signals[0]));
            let inner = block(&signals).expect("both blocked");
            unblock(&signals[..1]).expect("let through");
            assert!(!blocked().contains(&signals[0]) && blocked().contains(&signals[1]));
            inner.restore();
            assert!(blocked().contains(&signals[0]) && !blocked().contains(&signals[1]));
            saved.restore();
            assert_eq!(blocked(), before);
            block(&[-1]).expect_err("no such signal");
        })
        .join()
        .expect("thread");
    }
}
