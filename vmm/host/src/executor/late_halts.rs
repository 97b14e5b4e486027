//! Whether halts and wakes are noticed when they happen.
//!
//! Where they are not, a halted vCPU sleeps in `KVM_RUN` on its executor's thread and keeps the host CPU
//! from all others until it is looked at, up to a millisecond later. No reservation holds beside that,
//! so a run that has one is refused unless its user accepts it.

use std::thread;

use baton_config::{GuestConfig, LateHalts, RunConfig};
use baton_machine::kvm::{self, KvmError};
use thiserror::Error;
use vcpu_sched::Exhaustion;

use super::signal;
use crate::halt::{HaltSignal, HaltSignalError, WakeStepError, check_wake_events, check_wake_step};

/// Why halts or wakes are noticed late.
#[derive(Debug, Error)]
pub enum LateHaltsReason {
    /// Halts do not end `KVM_RUN`.
    #[error(transparent)]
    Halts(#[from] HaltSignalError),
    /// Wakes cannot be made exits.
    #[error(transparent)]
    Wakes(#[from] WakeStepError),
    /// KVM cannot be asked.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The host had enough for the first threads, not for all.
    #[error(
        "this host has no perf event left for one of Baton's threads, so the halt of a vCPU is noticed \
         late: raise the limit of open files (ulimit -n)"
    )]
    TooFew,
}

/// A run that is not started because halts would be noticed late.
#[derive(Debug, Error)]
#[error(
    "guest {guest} has a reservation, which this host cannot keep: {reason}; or give --late-halts allow \
     (late_halts = \"allow\" in a file) to run all the same, where a halted vCPU keeps its host CPU from \
     others for up to 1 ms"
)]
pub struct LateHaltsError {
    /// The first guest with a reservation.
    pub guest: String,
    /// Why they are late.
    pub reason: LateHaltsReason,
}

/// Refuses or warns of a run of `config` if halts or wakes would be noticed late. The kick signal must
/// have been installed.
///
/// # Errors
/// If it has a reservation and its user has not accepted that.
pub(super) fn check(config: &RunConfig) -> Result<(), LateHaltsError> {
    match config.late_halts {
        LateHalts::Allow => Ok(()),
        LateHalts::Refuse => match look() {
            Ok(()) => {
                warn_of_steps(config);
                Ok(())
            }
            Err(reason) => judge(config, reason),
        },
    }
}

/// The same after the threads have been started: `seen` tells whether all of them notice halts.
///
/// # Errors
/// As [`check`].
pub(super) fn check_threads(config: &RunConfig, seen: bool) -> Result<(), LateHaltsError> {
    match (config.late_halts, reserved(config)) {
        (LateHalts::Refuse, Some(guest)) if !seen => Err(LateHaltsError {
            guest,
            reason: LateHaltsReason::TooFew,
        }),
        _ => Ok(()),
    }
}

fn judge(config: &RunConfig, reason: LateHaltsReason) -> Result<(), LateHaltsError> {
    match reserved(config) {
        Some(guest) => Err(LateHaltsError { guest, reason }),
        None => {
            if !config.quiet {
                baton_os::say!(
                    "baton: warning: {reason} (no such warning with --late-halts allow)"
                );
            }
            Ok(())
        }
    }
}

/// The first guest with a reservation.
fn reserved(config: &RunConfig) -> Option<String> {
    let reserved = |guest: &&GuestConfig| guest.reservations.iter().any(Option::is_some);
    config
        .guests
        .iter()
        .find(reserved)
        .map(|guest| guest.name.clone())
}

/// Warns that the time which hard reservations bound is bounded less tightly where KVM's tracepoints cannot
/// be had. The run does not wait for that: closing the events that it tries takes the kernel 100 ms.
fn warn_of_steps(config: &RunConfig) {
    let hard = |guest: &GuestConfig| {
        guest
            .reservations
            .iter()
            .flatten()
            .any(|r| r.exhaustion() == Exhaustion::Hard)
    };
    if config.quiet || !config.guests.iter().any(hard) {
        return;
    }
    let warn = || {
        if let Err(reason) = check_wake_events() {
            baton_os::say!("baton: warning: {reason} (no such warning with --late-halts allow)");
        }
    };
    // Without a thread there is no warning; the run itself needs more of them, and says so.
    let _ = thread::Builder::new()
        .name("check-wakes".to_owned())
        .spawn(warn);
}

/// Tries both on this host.
fn look() -> Result<(), LateHaltsReason> {
    // On a thread of its own: the signal may come before the event is closed again.
    thread::scope(|scope| {
        let attempt = scope.spawn(|| HaltSignal::arm(signal::kick_signal()).map(drop));
        attempt
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    check_wake_step(&kvm::open()?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(reserved: bool, late_halts: LateHalts) -> RunConfig {
        let mut guest = GuestConfig::new("db").with_cpus(2);
        guest.reservations[1] = reserved.then(|| "1ms/10ms".parse().expect("a reservation"));
        RunConfig {
            guests: vec![GuestConfig::new("web"), guest],
            late_halts,
            quiet: true,
            ..RunConfig::default()
        }
    }

    #[test]
    fn only_a_run_with_a_reservation_is_refused_and_only_if_its_user_has_not_accepted_it() {
        for (reserved, late_halts, refused) in [
            (true, LateHalts::Refuse, true),
            (true, LateHalts::Allow, false),
            (false, LateHalts::Refuse, false),
        ] {
            let config = config(reserved, late_halts);
            let judged = || match late_halts {
                LateHalts::Refuse => judge(&config, LateHaltsReason::TooFew),
                LateHalts::Allow => check(&config),
            };
            assert_eq!(judged().is_err(), refused);
            assert_eq!(check_threads(&config, false).is_err(), refused);
            assert!(check_threads(&config, true).is_ok());
        }
    }

    #[test]
    fn the_refusal_names_the_guest_the_way_out_and_what_the_flag_means() {
        let reason = LateHaltsReason::Wakes(WakeStepError::Unsupported(0));
        let config = config(true, LateHalts::Refuse);
        let text = judge(&config, reason).expect_err("refused").to_string();
        for part in ["guest db", "Linux 5.16", "--late-halts allow", "1 ms"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('\n'));
    }
}
