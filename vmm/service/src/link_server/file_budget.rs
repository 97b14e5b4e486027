//! How many files guests' processes may make the pool open. Each guest costs some files, and the pool's own needs, the
//! API's connections and root's guests must have theirs, whatever others have.

use baton_run::files;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;

/// Files of a guest: its connection, the file for wakes, two pidfds, its directory in `/proc`, and its memory file for a
/// moment.
const OF_A_GUEST: u64 = 6;
/// Files of a vCPU: the clock of its thread and the way to kick it.
const OF_A_VCPU: u64 = 2;
/// Connections to the API, and what the pool opens for moments.
const OF_THE_POOL: u64 = 16 + 256 + 64;
/// Of the rest, one part in this number is root's alone.
const PART_OF_ROOT: u64 = 8;

/// Guests' processes have as many files as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the pool may open too few files for another {0} vCPUs; raise LimitNOFILE of its service (ulimit -n), or end a guest"
)]
pub(super) struct NoFilesLeft(usize);

/// The files that the processes of guests may make the pool open.
#[derive(Debug)]
pub(super) struct FileBudget {
    /// All of them.
    all: u64,
    used: u64,
}

impl FileBudget {
    /// That of this process, which has opened what it needs itself.
    pub(super) fn of_this_process() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::new(limit, files::open_now())
    }

    fn new(limit: u64, open: u64) -> Self {
        Self {
            all: limit.saturating_sub(open + OF_THE_POOL),
            used: 0,
        }
    }

    /// Takes the files for a guest with so many `vcpus`, of root or of another user. Returns how many they are.
    ///
    /// # Errors
    /// If there are too few.
    pub(super) fn take(&mut self, vcpus: usize, is_root: bool) -> Result<u64, NoFilesLeft> {
        let files = OF_A_GUEST + OF_A_VCPU * vcpus as u64;
        let of_root = if is_root { 0 } else { self.all / PART_OF_ROOT };
        if self.used + files + of_root > self.all {
            return Err(NoFilesLeft(vcpus));
        }
        self.used += files;
        Ok(files)
    }

    /// Gives `files` back.
    pub(super) fn give_back(&mut self, files: u64) {
        self.used = self.used.saturating_sub(files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_leave_files_for_root_and_all_leave_them_for_the_pool() {
        let mut budget = FileBudget::new(OF_THE_POOL + 20 + 800, 20);
        let mut of_users = 0;
        while let Ok(files) = budget.take(1, false) {
            of_users += files;
        }
        assert!((693..=700).contains(&of_users), "{of_users}");
        assert_eq!(budget.take(1, false), Err(NoFilesLeft(1)));
        let of_root = budget.take(40, true).expect("root's part");
        assert_eq!(of_root, 86);
        assert!(budget.take(40, true).is_err());
        budget.give_back(of_users);
        assert_eq!(budget.take(1, false), Ok(8));
    }

    #[test]
    fn a_limit_below_what_the_pool_needs_leaves_none() {
        assert!(FileBudget::new(256, 20).take(1, true).is_err());
    }
}
