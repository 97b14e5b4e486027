//! The runs of this user that have a control socket.

use std::path::PathBuf;

use super::directories::directories;
use super::runtime_dir::listening_in;

/// The process ids of the runs in all [`directories`], with one socket each.
#[must_use]
pub fn instances() -> Vec<(u32, PathBuf)> {
    let mut found: Vec<_> = directories()
        .iter()
        .flat_map(|path| listening_in(path))
        .collect();
    // The sort is stable, so the sockets of a process stay in the order of the directories.
    found.sort_by_key(|(pid, _)| *pid);
    found.dedup_by_key(|(pid, _)| *pid);
    found
}
