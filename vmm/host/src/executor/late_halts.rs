//! Checks that this host lets Baton notice halts and wakes when they happen.
//!
//! On a host that does not, a halted vCPU sleeps in `KVM_RUN` on its executor's thread and keeps the host
//! CPU from all others until it is checked, up to a millisecond later. No reservation can be kept beside
//! that, so a run that has one is refused unless its user accepts it.

use std::thread;

use baton_config::{GuestConfig, LateHalts};
use baton_machine::kvm::{self, KvmError};
use baton_os::signals::RtSignal;
use thiserror::Error;
use vcpu_sched::Exhaustion;

use super::kick_handler;
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
    /// KVM could not be opened.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The host had perf events for the first threads, and none for the others.
    #[error(
        "this host has no perf event left for one of Baton's threads, so the halt of a vCPU is noticed \
         late: raise the limit of open files (ulimit -n)"
    )]
    TooFew,
}

/// The run was not started, because halts would be noticed late.
#[derive(Debug, Error)]
#[error(
    "guest {guest} has a reservation, which this host cannot keep: {reason}; or give --late-halts allow \
     (late_halts = \"allow\" in a file) to run all the same, where a halted vCPU keeps its host CPU from \
     others for up to 1 ms"
)]
pub struct LateHaltsError {
    /// Name of the first guest with a reservation.
    pub guest: String,
    /// Why halts would be noticed late.
    pub reason: LateHaltsReason,
}

/// Refuses `guests`, or warns of them unless `quiet`, if halts or wakes would be noticed late. The kick signal
/// must have been installed.
///
/// # Errors
/// If there is a reservation and the user has not accepted late halts.
pub(super) fn check(
    accepted: LateHalts,
    guests: &[GuestConfig],
    quiet: bool,
) -> Result<(), LateHaltsError> {
    match accepted {
        LateHalts::Allow => Ok(()),
        LateHalts::Refuse => match probe_host() {
            Ok(()) => {
                if !quiet {
                    warn_of_steps(guests);
                }
                Ok(())
            }
            Err(reason) => judge(guests, reason, quiet),
        },
    }
}

/// The same for a guest in a process of its own, before its vCPUs' threads are started.
///
/// # Errors
/// If halts are noticed late here, the guest has a reservation and the user has not accepted that; or if the kick signal
/// cannot be installed.
pub fn check_late_halts(accepted: LateHalts, guest: &GuestConfig) -> Result<(), LateHaltsError> {
    let installed = kick_handler::install();
    installed.map_err(|error| LateHaltsError {
        guest: guest.name.clone(),
        reason: HaltSignalError::Host {
            what: "the kick signal",
            source: error.into(),
        }
        .into(),
    })?;
    check(accepted, std::slice::from_ref(guest), false)
}

/// The same for a guest that joins a pool.
///
/// # Errors
/// As [`check`].
pub(super) fn check_joining(
    accepted: LateHalts,
    guest: &GuestConfig,
) -> Result<(), LateHaltsError> {
    let guest = reserved(std::slice::from_ref(guest));
    match (accepted, guest) {
        (LateHalts::Refuse, Some(guest)) => {
            probe_host().map_err(|reason| LateHaltsError { guest, reason })
        }
        _ => Ok(()),
    }
}

/// The same after the threads have been started, depending on whether all of them detect halts.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_threads(
    accepted: LateHalts,
    guests: &[GuestConfig],
    detect_halts: bool,
) -> Result<(), LateHaltsError> {
    match (accepted, reserved(guests)) {
        (LateHalts::Refuse, Some(guest)) if !detect_halts => Err(LateHaltsError {
            guest,
            reason: LateHaltsReason::TooFew,
        }),
        _ => Ok(()),
    }
}

fn judge(
    guests: &[GuestConfig],
    reason: LateHaltsReason,
    quiet: bool,
) -> Result<(), LateHaltsError> {
    match reserved(guests) {
        Some(guest) => Err(LateHaltsError { guest, reason }),
        None => {
            if !quiet {
                baton_os::say!(
                    "baton: warning: {reason} (no such warning with --late-halts allow)"
                );
            }
            Ok(())
        }
    }
}

/// Name of the first guest with a reservation.
fn reserved(guests: &[GuestConfig]) -> Option<String> {
    let reserved = |guest: &&GuestConfig| guest.reservations.iter().any(Option::is_some);
    let guest = guests.iter().find(reserved)?;
    Some(guest.name.clone())
}

/// Warns if KVM's tracepoints are not available, because hard reservations then bound a vCPU's time less
/// tightly. Nothing waits for the check: closing the events that it tries takes the kernel 100 ms.
fn warn_of_steps(guests: &[GuestConfig]) {
    let hard = |guest: &GuestConfig| {
        guest
            .reservations
            .iter()
            .flatten()
            .any(|r| r.exhaustion() == Exhaustion::Hard)
    };
    if !guests.iter().any(hard) {
        return;
    }
    let warn = || {
        if let Err(reason) = check_wake_events() {
            baton_os::say!("baton: warning: {reason} (no such warning with --late-halts allow)");
        }
    };
    // If no thread can be started there is no warning; the run itself needs more threads, and reports that.
    let _ = thread::Builder::new()
        .name("check-wakes".to_owned())
        .spawn(warn);
}

/// Tries on this host to have halts and wakes noticed.
fn probe_host() -> Result<(), LateHaltsReason> {
    // On a thread of its own, because the signal may come before the event is closed again.
    thread::scope(|scope| {
        let arm = || HaltSignal::arm(RtSignal::ExecutorKick.number()).map(drop);
        let attempt = thread::Builder::new().spawn_scoped(scope, arm);
        let attempt = attempt.map_err(|source| HaltSignalError::Host {
            what: "a thread",
            source,
        })?;
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

    fn guests(reserved: bool) -> [GuestConfig; 2] {
        let mut guest = GuestConfig::new("db").with_cpus(2);
        guest.reservations[1] = reserved.then(|| "1ms/10ms".parse().expect("a reservation"));
        [GuestConfig::new("web"), guest]
    }

    #[test]
    fn only_a_guest_with_a_reservation_is_refused_and_only_if_the_user_has_not_accepted_it() {
        for (reserved, accepted, refused) in [
            (true, LateHalts::Refuse, true),
            (true, LateHalts::Allow, false),
            (false, LateHalts::Refuse, false),
        ] {
            let guests = guests(reserved);
            let judged = || match accepted {
                LateHalts::Refuse => judge(&guests, LateHaltsReason::TooFew, true),
                LateHalts::Allow => check(accepted, &guests, true),
            };
            assert_eq!(judged().is_err(), refused);
            assert_eq!(check_threads(accepted, &guests, false).is_err(), refused);
            assert!(check_threads(accepted, &guests, true).is_ok());
        }
    }

    #[test]
    fn the_refusal_names_the_guest_the_way_out_and_what_the_flag_means() {
        let reason = LateHaltsReason::Wakes(WakeStepError::Unsupported(0));
        let text = judge(&guests(true), reason, true)
            .expect_err("refused")
            .to_string();
        for part in ["guest db", "Linux 5.16", "--late-halts allow", "1 ms"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('\n'));
    }
}
