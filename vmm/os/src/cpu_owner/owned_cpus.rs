//! The host CPUs that this process owns.

use std::ffi::OsString;
use std::io;

use super::owner::Owner;
use super::owner_file::{Attempt, OwnerFile};
use crate::directory::Directory;

/// Host CPUs that this process owns until this is dropped.
#[derive(Debug, Default)]
pub struct OwnedCpus {
    files: Vec<(usize, OwnerFile)>,
    taken: TakenCpus,
    /// The host CPUs whose files could not be used.
    failed: Vec<(usize, io::Error)>,
}

/// Host CPUs that another process owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenCpus {
    /// Their numbers.
    pub cpus: Vec<usize>,
    /// The process that owns the first of them, if its file describes the process.
    pub owner: Option<Owner>,
}

impl OwnedCpus {
    /// Makes `owner`, which is this process, the owner of those of `cpus` that no other process owns. Their files
    /// are in `directory`.
    #[must_use]
    pub fn take(directory: &Directory, cpus: &[usize], owner: &Owner) -> Self {
        let mut all = Self::default();
        for &cpu in cpus {
            match OwnerFile::lock(directory, &file_name(cpu), owner) {
                Ok(Attempt::Owned(file)) => all.files.push((cpu, file)),
                Ok(Attempt::Taken(owner)) => {
                    if all.taken.cpus.is_empty() {
                        all.taken.owner = owner;
                    }
                    all.taken.cpus.push(cpu);
                }
                Err(error) => all.failed.push((cpu, error)),
            }
        }
        all
    }

    /// This process owns what it owns by `other`, too.
    pub fn add(&mut self, other: Self) {
        self.files.extend(other.files);
    }

    /// This process does not own `cpu` any more.
    pub fn release(&mut self, cpu: usize) {
        self.files.retain(|&(owned, _)| owned != cpu);
    }

    /// How many host CPUs this process owns by this.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The host CPUs that another process owns.
    #[must_use]
    pub fn taken(&self) -> &TakenCpus {
        &self.taken
    }

    /// The first host CPU whose file could not be used, so that it is not clear who owns it.
    #[must_use]
    pub fn first_failure(&self) -> Option<&(usize, io::Error)> {
        self.failed.first()
    }
}

/// The name of the file of a host CPU.
fn file_name(cpu: usize) -> OsString {
    format!("{cpu}.lock").into()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of a test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("baton-cpu-owner-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a directory");
            Self(path)
        }

        fn take(&self, cpus: &[usize], what: &str) -> OwnedCpus {
            let directory = Directory::open(&self.0).expect("opens");
            OwnedCpus::take(&directory, cpus, &Owner::this_process(what))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_second_owner_gets_what_is_free_and_the_name_of_the_first() {
        let scratch = Scratch::new();
        let first = scratch.take(&[0, 1], "baton run a");
        assert_eq!((first.count(), first.taken()), (2, &TakenCpus::default()));
        let second = scratch.take(&[1, 2], "baton run b");
        assert_eq!(second.count(), 1);
        let owner = Some(Owner::this_process("baton run a"));
        assert_eq!(
            second.taken(),
            &TakenCpus {
                cpus: vec![1],
                owner
            }
        );
        let mut more = scratch.take(&[5], "baton run a");
        more.add(first);
        more.release(1);
        assert_eq!(
            (
                more.count(),
                scratch.take(&[0, 1, 5], "baton run d").count()
            ),
            (2, 1)
        );
        drop(more);
        assert_eq!(scratch.take(&[0, 1], "baton run c").count(), 2);
        assert_eq!(scratch.take(&[2], "baton run c").count(), 0);
    }

    #[test]
    fn a_file_that_nothing_has_locked_is_a_leftover_and_any_user_may_use_it() {
        let scratch = Scratch::new();
        let path = scratch.0.join("3.lock");
        fs::write(
            &path,
            "pid 1\nwhat a much longer description of another owner\n",
        )
        .expect("a file");
        let owned = scratch.take(&[3, 4], "baton run a");
        assert_eq!(owned.count(), 2);
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text, Owner::this_process("baton run a").to_text());
        let new = fs::metadata(scratch.0.join("4.lock")).expect("a file");
        assert_eq!(new.permissions().mode() & 0o777, 0o666);
    }

    #[test]
    fn nothing_is_written_through_links_and_what_is_no_file_is_not_waited_for() {
        let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
        let precious = elsewhere.0.join("precious");
        fs::write(&precious, "old").expect("a file");
        symlink(&precious, scratch.0.join("0.lock")).expect("a symbolic link");
        fs::hard_link(&precious, scratch.0.join("1.lock")).expect("a hard link");
        fs::create_dir(scratch.0.join("2.lock")).expect("a directory");
        let fifo = scratch.0.join("3.lock");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .expect("a FIFO");
        fs::set_permissions(&fifo, Permissions::from_mode(0o666)).expect("a mode");
        for cpu in 0..4 {
            let owned = scratch.take(&[cpu], "baton run a");
            assert_eq!(owned.count(), 0, "{cpu}");
            assert_eq!(owned.first_failure().map(|(cpu, _)| *cpu), Some(cpu));
        }
        assert_eq!(fs::read(&precious).expect("a file"), b"old");
    }
}
