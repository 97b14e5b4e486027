//! Runs without perf events, as ordinary users have them on most hosts.

use std::{fs, thread};

use baton_host::halt::HaltSignal;
use baton_os::signals;

use super::process::Privileges;

/// The privileges with which a run has no perf events.
///
/// # Errors
/// The reason, as a sentence, why every run on this host has perf events.
pub fn without_events() -> Result<Privileges, String> {
    if !has_events() {
        return Ok(Privileges::All);
    }
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok();
    let level = level.and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(level @ ..=1) = level {
        return Err(format!(
            "every user has perf events here (kernel.perf_event_paranoid is {level}), so no halt is \
             noticed late"
        ));
    }
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err("only root can take the right to perf events away from a run".to_owned());
    }
    Ok(Privileges::NoPerfEvents)
}

/// Whether a thread of this process can be signalled when its vCPU halts.
fn has_events() -> bool {
    // The signal may arrive before the event is closed, and must have no effect then.
    if signals::install_kick().is_err() {
        return false;
    }
    let thread = thread::spawn(|| HaltSignal::arm(signals::kick_signal()).is_ok());
    thread.join().unwrap_or(false)
}
