//! The host CPUs of a run belong to this process while the run lasts.
//!
//! Only schedulers that promise CPU time own host CPUs: under the host's scheduler, a run competes like any other
//! program.

use baton_config::RunConfig;
use baton_config::units::format_cpus;
use baton_os::cpu_owner::{HOST_DIRECTORY, OwnedCpus, Owner, Place, TakenCpus};
use thiserror::Error;

/// Another process owns host CPUs of the pool.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{} of this run: give others with --host-cpus, or share them with --share-cpus, and neither keeps its \
     reservations",
    taken_text(.0)
)]
pub struct CpusTaken(pub TakenCpus);

/// Makes this process the owner of `cpus`, the host CPUs of the pool, if the run of `config` promises CPU time.
/// Prints a warning on standard error about what cannot be excluded or was shared by request.
///
/// # Errors
/// If another process owns one of them, and `config` does not permit to share it.
pub(crate) fn own(config: &RunConfig, cpus: &[usize]) -> Result<OwnedCpus, CpusTaken> {
    if config.sched.policy().is_none() {
        return Ok(OwnedCpus::default());
    }
    let directory = match Place::find() {
        Ok(Place::Off) => return Ok(OwnedCpus::default()),
        Ok(Place::Common(directory)) => directory,
        Ok(Place::OwnUser { directory, reason }) => {
            warn_if_promised(config, cpus, "runs of other users", &reason.to_string());
            directory
        }
        Err(reason) => {
            warn_if_promised(config, cpus, "other runs", &reason.to_string());
            return Ok(OwnedCpus::default());
        }
    };
    let owned = OwnedCpus::take(&directory, cpus, &Owner::this_process(&name(config)));
    if let Some((cpu, error)) = owned.first_failure() {
        let reason = format!("the file of host CPU {cpu} cannot be used: {error}");
        warn_if_promised(config, cpus, "other runs", &reason);
    }
    if owned.taken().cpus.is_empty() {
        return Ok(owned);
    }
    if !config.share_cpus {
        return Err(CpusTaken(owned.taken().clone()));
    }
    baton_os::say!(
        "baton: {} of this run, so neither keeps its reservations there (--share-cpus)",
        taken_text(owned.taken())
    );
    Ok(owned)
}

/// What a run with reservations should know: nothing keeps `others` off its host CPUs.
fn warn_if_promised(config: &RunConfig, cpus: &[usize], others: &str, reason: &str) {
    let mut reservations = config.guests.iter().flat_map(|guest| &guest.reservations);
    if reservations.any(Option::is_some) {
        baton_os::say!(
            "baton: {others} may use host CPUs {} too, and break the reservations of this run, because {reason} \
             (baton run as root creates {HOST_DIRECTORY} for all users)",
            format_cpus(cpus)
        );
    }
}

fn taken_text(taken: &TakenCpus) -> String {
    let owner = match &taken.owner {
        Some(owner) => owner.to_string(),
        None => "another process".to_owned(),
    };
    format!("{owner} owns host CPUs {}", format_cpus(&taken.cpus))
}

/// What this run is called in the errors of others.
fn name(config: &RunConfig) -> String {
    match config.guests.as_slice() {
        _ if config.quiet => "baton bench".to_owned(),
        [] => "baton run".to_owned(),
        [only] => format!("baton run {}", only.name),
        [first, others @ ..] => format!("baton run {} and {} more", first.name, others.len()),
    }
}

#[cfg(test)]
mod tests {
    use baton_config::GuestConfig;

    use super::*;

    #[test]
    fn the_refusal_names_the_owner_and_the_ways_out() {
        let owner = Owner {
            pid: 1234,
            what: "baton run db".to_owned(),
        };
        let taken = |owner| {
            CpusTaken(TakenCpus {
                cpus: vec![0, 1],
                owner,
            })
        };
        assert_eq!(
            taken(Some(owner)).to_string(),
            "baton run db (process 1234) owns host CPUs 0-1 of this run: give others with --host-cpus, or share \
             them with --share-cpus, and neither keeps its reservations"
        );
        let nameless = taken(None).to_string();
        assert!(
            nameless.starts_with("another process owns host CPUs 0-1"),
            "{nameless}"
        );
    }

    #[test]
    fn a_run_is_called_after_its_guests() {
        let named = |names: &[&str]| {
            name(&RunConfig {
                guests: names.iter().map(|name| GuestConfig::new(name)).collect(),
                ..RunConfig::default()
            })
        };
        assert_eq!(named(&["db"]), "baton run db");
        assert_eq!(named(&["db", "web", "log"]), "baton run db and 2 more");
    }
}
