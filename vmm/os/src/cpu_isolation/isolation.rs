//! An isolation from its beginning to its end.

use std::ffi::OsStr;

use super::change::Change;
use super::error::IsolationError;
use super::hierarchy::Hierarchy;
use super::host::{Host, ThisHost};
use super::record::{self, Records};
use super::shield::Remaining;
use crate::cpu_owner::{Attempt, Owner, OwnerFile};
use crate::directory::Directory;

/// Name of the file that the process which isolates host CPUs has locked.
const LOCK: &str = "isolation.lock";

/// Host CPUs from which other programs are kept away until this is dropped.
#[derive(Debug)]
pub struct Isolation {
    /// `None` once it has ended.
    change: Option<Change>,
    remaining: Remaining,
    directory: Directory,
    /// Dropped last: nobody else undoes the change meanwhile.
    _lock: OwnerFile,
}

impl Isolation {
    /// Keeps other programs off `cpus`, which `owner`, this process, has for itself. The record of what is changed
    /// is kept in `directory`, that of the CPU locks. What a process that was killed has left is undone before.
    ///
    /// # Errors
    /// If that is not possible. Nothing is changed then, unless the host also refuses to undo what was changed;
    /// the record remains in that case.
    pub fn begin(
        directory: Directory,
        owner: &Owner,
        cpus: &[usize],
    ) -> Result<Self, IsolationError> {
        let lock = OwnerFile::lock(&directory, OsStr::new(LOCK), owner);
        let lock = match lock.map_err(IsolationError::Record)? {
            Attempt::Owned(lock) => lock,
            Attempt::Taken(owner) => return Err(IsolationError::Taken(owner)),
        };
        undo_recorded(&ThisHost, &directory)?;
        let hierarchy = Hierarchy::find(&ThisHost)?;
        let (change, remaining) = isolate(&ThisHost, &directory, hierarchy, cpus)?;
        Ok(Self {
            change: Some(change),
            remaining,
            directory,
            _lock: lock,
        })
    }

    /// What may still run on the host CPUs.
    #[must_use]
    pub fn remaining(&self) -> &Remaining {
        &self.remaining
    }

    /// Gives the host CPUs back to all.
    ///
    /// # Errors
    /// If the host refuses that. The record remains then.
    pub fn end(mut self) -> Result<(), IsolationError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), IsolationError> {
        match self.change.take() {
            Some(change) => give_back(&ThisHost, &self.directory, &change),
            None => Ok(()),
        }
    }
}

impl Drop for Isolation {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            crate::say!("baton: {error}");
        }
    }
}

/// Undoes an isolation whose process was killed before it could. Its record is in `directory`, that of the CPU
/// locks. Returns whether there was one.
///
/// # Errors
/// If the host refuses that, or the record cannot be understood. The record remains then.
pub fn recover(directory: &Directory, owner: &Owner) -> Result<bool, IsolationError> {
    if !matches!(directory.kept(), Ok(Some(_))) {
        return Ok(false);
    }
    match OwnerFile::lock(directory, OsStr::new(LOCK), owner) {
        Ok(Attempt::Owned(_lock)) => undo_recorded(&ThisHost, directory),
        // Its process runs.
        Ok(Attempt::Taken(_)) => Ok(false),
        Err(error) => Err(IsolationError::Record(error)),
    }
}

/// Undoes what is recorded, and returns whether anything was.
pub(super) fn undo_recorded(
    host: &impl Host,
    records: &impl Records,
) -> Result<bool, IsolationError> {
    let Some(text) = records.kept().map_err(IsolationError::Record)? else {
        return Ok(false);
    };
    give_back(host, records, &record::parse(&text)?)?;
    Ok(true)
}

/// Isolates `cpus`, or leaves all as it was.
pub(super) fn isolate(
    host: &impl Host,
    records: &impl Records,
    hierarchy: Hierarchy,
    cpus: &[usize],
) -> Result<(Change, Remaining), IsolationError> {
    let change = Change::plan(host, hierarchy, cpus)?;
    make(host, records, change, cpus)
}

/// Makes a change that was planned, or leaves all as it was.
pub(super) fn make(
    host: &impl Host,
    records: &impl Records,
    mut change: Change,
    cpus: &[usize],
) -> Result<(Change, Remaining), IsolationError> {
    let keep = |change: &Change| {
        let kept = records.keep(&record::to_text(change));
        kept.map_err(IsolationError::Record)
    };
    match change.make(host, cpus, keep) {
        Ok(remaining) => Ok((change, remaining)),
        // Another process has created the group since, and what it changes is not undone here.
        Err(error @ IsolationError::GroupExists(_)) => {
            records.remove().map_err(IsolationError::Record)?;
            Err(error)
        }
        Err(error) => {
            // The record remains if this fails, and the next start tries again.
            let _ = give_back(host, records, &change);
            Err(error)
        }
    }
}

/// Undoes `change`, and removes its record.
pub(super) fn give_back(
    host: &impl Host,
    records: &impl Records,
    change: &Change,
) -> Result<(), IsolationError> {
    change.undo(host)?;
    records.remove().map_err(IsolationError::Record)
}
