//! The host CPUs of a run belong to this process while the run lasts.
//!
//! Only schedulers that promise CPU time own host CPUs: under the host's scheduler, a run competes like any other
//! program.

use std::path::Path;

use baton_config::RunConfig;
use baton_config::units::format_cpus;
use baton_os::cpu_owner::{HOST_DIRECTORY, OwnedCpus, Owner, Place, TakenCpus};
use thiserror::Error;

/// Another process owns host CPUs of the pool.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{} of this {of}: {}give others with --host-cpus, or share them with --share-cpus, and neither keeps its \
     reservations",
    taken_text(.taken),
    way_in(.taken)
)]
pub struct CpusTaken {
    /// The host CPUs, and who owns them.
    pub taken: TakenCpus,
    /// What was to own them: a `run`, or a `pool`.
    pub of: &'static str,
}

/// On which terms a process is to own host CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnTerms {
    /// What the process has, a `run` or a `pool`.
    pub of: &'static str,
    /// Whether reservations depend on it.
    pub promises: bool,
    /// Whether the host CPUs may belong to others, too.
    pub share: bool,
}

/// Makes this process the owner of `cpus`, the host CPUs of the pool, if the run of `config` promises CPU time.
/// Prints a warning on standard error about what cannot be excluded or was shared by request.
///
/// # Errors
/// If another process owns one of them, and `config` does not permit to share it.
pub(crate) fn own(config: &RunConfig, cpus: &[usize]) -> Result<OwnedCpus, CpusTaken> {
    if config.sched.policy().is_none() {
        return Ok(OwnedCpus::default());
    }
    let mut reservations = config.guests.iter().flat_map(|guest| &guest.reservations);
    let terms = OwnTerms {
        of: "run",
        promises: reservations.any(Option::is_some),
        share: config.share_cpus,
    };
    own_as(&Owner::this_process(&name(config)), cpus, terms)
}

/// Makes this process the owner of the host CPUs `cpus` of a pool whose sockets are in `directory`. Prints
/// warnings as a run does.
///
/// # Errors
/// If another process owns one of them, and they are not to be `share`d.
pub fn own_for_pool(directory: &Path, cpus: &[usize], share: bool) -> Result<OwnedCpus, CpusTaken> {
    let owner = Owner::this_process("baton pool").with_pool(directory);
    let terms = OwnTerms {
        of: "pool",
        promises: true,
        share,
    };
    own_as(&owner, cpus, terms)
}

/// Makes this process, which is `owner`, the owner of `cpus`.
fn own_as(owner: &Owner, cpus: &[usize], terms: OwnTerms) -> Result<OwnedCpus, CpusTaken> {
    let directory = match Place::find() {
        Ok(Place::Off) => return Ok(OwnedCpus::default()),
        Ok(Place::Common(directory)) => directory,
        Ok(Place::OwnUser { directory, reason }) => {
            terms.warn_if_promised(cpus, "runs of other users", &reason.to_string());
            directory
        }
        Err(reason) => {
            terms.warn_if_promised(cpus, "other runs", &reason.to_string());
            return Ok(OwnedCpus::default());
        }
    };
    let owned = OwnedCpus::take(&directory, cpus, owner);
    if let Some((cpu, error)) = owned.first_failure() {
        let reason = format!("the file of host CPU {cpu} cannot be used: {error}");
        terms.warn_if_promised(cpus, "other runs", &reason);
    }
    if owned.taken().cpus.is_empty() {
        return Ok(owned);
    }
    if !terms.share {
        let taken = owned.taken().clone();
        return Err(CpusTaken {
            taken,
            of: terms.of,
        });
    }
    baton_os::say!(
        "baton: {} of this {}, so neither keeps its reservations there (--share-cpus)",
        taken_text(owned.taken()),
        terms.of
    );
    Ok(owned)
}

impl OwnTerms {
    /// What those with reservations should know: nothing keeps `others` off their host CPUs.
    fn warn_if_promised(self, cpus: &[usize], others: &str, reason: &str) {
        if self.promises {
            baton_os::say!(
                "baton: {others} may use host CPUs {} too, and break the reservations of this {}, because {reason} \
                 (baton run as root creates {HOST_DIRECTORY} for all users)",
                format_cpus(cpus),
                self.of
            );
        }
    }
}

fn taken_text(taken: &TakenCpus) -> String {
    let owner = match &taken.owner {
        Some(owner) => owner.to_string(),
        None => "another process".to_owned(),
    };
    format!("{owner} owns host CPUs {}", format_cpus(&taken.cpus))
}

/// How the owner runs guests of others, if it does.
fn way_in(taken: &TakenCpus) -> String {
    let pool = taken.owner.as_ref().and_then(|owner| owner.pool.as_ref());
    pool.map_or_else(String::new, |directory| {
        format!(
            "have it run the guests with baton vm --pool {}, ",
            directory.display()
        )
    })
}

/// What this run is called in the errors of others.
pub(crate) fn name(config: &RunConfig) -> String {
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
            pool: None,
        };
        let taken = |owner| CpusTaken {
            taken: TakenCpus {
                cpus: vec![0, 1],
                owner,
            },
            of: "run",
        };
        assert_eq!(
            taken(Some(owner)).to_string(),
            "baton run db (process 1234) owns host CPUs 0-1 of this run: give others with --host-cpus, or share \
             them with --share-cpus, and neither keeps its reservations"
        );
        let pool = Owner::this_process("baton pool").with_pool(Path::new("/run/baton/pool"));
        let pool = taken(Some(pool)).to_string();
        let way_in =
            "of this run: have it run the guests with baton vm --pool /run/baton/pool, give others";
        assert!(pool.contains(way_in), "{pool}");
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
