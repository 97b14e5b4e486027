//! The end of the guests that still run when the run is to end: those with a power button are requested to switch
//! themselves off, and have a time for that.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_config::RunConfig;
use baton_config::units::readable_ns;
use baton_machine::{Guest, GuestEnd, GuestRecord};
use baton_os::say;
use baton_os::signals::StopSignals;

use crate::error::RunError;
use crate::run_end::RunEnd;

/// Presses the power buttons of those of `guests` that still run, and waits until these guests have ended, until the
/// timeout of `config` has passed, or until a further signal comes. The guests without a button are cut at once.
///
/// # Errors
/// If the host has no event for the wait.
pub(crate) fn request(
    config: &RunConfig,
    guests: impl Iterator<Item = Arc<Guest>>,
    signals: Option<&StopSignals>,
) -> Result<(), RunError> {
    let timeout = config.shutdown_timeout;
    if timeout.is_zero() {
        return Ok(());
    }
    let requested = press_buttons(guests);
    if requested.is_empty() {
        return Ok(());
    }
    if !config.quiet {
        announce(requested.len(), timeout);
    }
    let deadline = Instant::now() + timeout;
    let waited = wait_for_ends(&requested, signals, deadline);
    if Instant::now() >= deadline {
        // Those that have ended keep their ends.
        let late = requested.iter();
        late.for_each(|guest| guest.end(GuestEnd::PowerCut));
    }
    waited.map_err(RunError::host(
        "waiting for guests to switch themselves off",
    ))
}

/// Presses all buttons. Returns the guests that have one, and ends the others.
fn press_buttons(guests: impl Iterator<Item = Arc<Guest>>) -> Vec<Arc<GuestRecord>> {
    let mut requested = Vec::new();
    for guest in guests {
        match guest.press_power_button() {
            true => requested.push(Arc::clone(guest.record())),
            false => guest.end(GuestEnd::Killed),
        }
    }
    requested
}

/// Waits until all of `guests` have ended, or until `deadline`, or until a signal comes.
fn wait_for_ends(
    guests: &[Arc<GuestRecord>],
    signals: Option<&StopSignals>,
    deadline: Instant,
) -> io::Result<()> {
    let ended = RunEnd::new(guests.len())?;
    for guest in guests {
        let ended = ended.clone();
        guest.on_end(move |_, _| ended.count());
    }
    ended.wait(signals, Some(deadline), || Ok(None))
}

fn announce(guests: usize, timeout: Duration) {
    let guests = match guests {
        1 => "the guest".to_owned(),
        several => format!("{several} guests"),
    };
    let timeout = readable_ns(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
    say!(
        "baton: waiting up to {timeout} for {guests} to power off; a further SIGINT or SIGTERM cuts the power"
    );
}
