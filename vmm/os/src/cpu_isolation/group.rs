//! The group of an isolation: how it is created and removed.

use std::io::ErrorKind;
use std::path::Path;

use super::error::IsolationError;
use super::host::Host;

/// How often the removal of a group is tried that a process which is ending still uses.
const ATTEMPTS: u32 = 100;

/// Creates the group of an isolation.
pub(super) fn create_group(host: &impl Host, group: &Path) -> Result<(), IsolationError> {
    match host.create_group(group) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(IsolationError::GroupExists(group.to_owned()))
        }
        created => created.map_err(IsolationError::host("creating", group)),
    }
}

/// `None` if what was to be done had to do with a file that is gone.
pub(super) fn absent_is_done<T>(
    result: Result<T, IsolationError>,
) -> Result<Option<T>, IsolationError> {
    match result {
        Err(IsolationError::Host { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Removes a group without tasks. A process that was killed may take a moment to leave it.
pub(super) fn remove_group(host: &impl Host, group: &Path) -> Result<(), IsolationError> {
    let mut attempt = 1;
    loop {
        match host.remove_group(group) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && attempt < ATTEMPTS => {
                attempt += 1;
                host.wait();
            }
            removed => return removed.map_err(IsolationError::host("removing", group)),
        }
    }
}
