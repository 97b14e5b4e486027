//! Keeping other programs off the host CPUs of a run while it lasts, if the user requests that.

use baton_config::RunConfig;
use baton_config::units::format_cpus;
use baton_os::cpu_isolation::{self, Isolation, IsolationError};
use baton_os::cpu_owner::{Owner, Place, VARIABLE};
use baton_os::directory::Directory;
use thiserror::Error;

use crate::cpu_owner;

/// Other programs could not be kept off the host CPUs of a run.
#[derive(Debug, Error)]
pub enum CannotIsolate {
    /// There is no directory of CPU locks, in which the record would be.
    #[error(
        "--isolate keeps a record of what it changes in the directory of CPU locks, and there is none: {0}; leave \
         --isolate out, or name a directory in {VARIABLE}"
    )]
    NoRecord(String),
    /// This host or what runs on it does not permit it.
    #[error(transparent)]
    Refused(#[from] IsolationError),
}

/// Undoes what a run that was killed has left of its isolation.
pub(crate) fn recover() {
    let (Ok(Place::Common(directory)) | Ok(Place::OwnUser { directory, .. })) = Place::find()
    else {
        return;
    };
    match cpu_isolation::recover(&directory, &Owner::this_process("baton run")) {
        Ok(false) => {}
        Ok(true) => baton_os::say!(
            "baton: a run that was killed had isolated host CPUs; other programs may use them again"
        ),
        Err(error) => {
            baton_os::say!("baton: a run that was killed has left host CPUs isolated: {error}");
        }
    }
}

/// Keeps other programs off `cpus`, if `config` requests it, and prints what may still run there.
///
/// # Errors
/// If that is not possible.
pub(crate) fn begin(
    config: &RunConfig,
    cpus: &[usize],
) -> Result<Option<Isolation>, CannotIsolate> {
    if !config.isolate {
        return Ok(None);
    }
    let owner = Owner::this_process(&cpu_owner::name(config));
    let isolation = Isolation::begin(directory()?, &owner, cpus)?;
    if !config.quiet {
        baton_os::say!(
            "baton: host CPUs {} are isolated: {}",
            format_cpus(cpus),
            isolation.remaining()
        );
    }
    Ok(Some(isolation))
}

fn directory() -> Result<Directory, CannotIsolate> {
    match Place::find() {
        Ok(Place::Common(directory) | Place::OwnUser { directory, .. }) => Ok(directory),
        Ok(Place::Off) => Err(CannotIsolate::NoRecord(format!("{VARIABLE} is off"))),
        Err(reason) => Err(CannotIsolate::NoRecord(reason.to_string())),
    }
}
