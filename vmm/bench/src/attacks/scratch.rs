//! The files of a run: its guests, their kernel, their disks.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::AttackError;
use super::attack::{Attack, KERNEL, disk};

/// Length of a disk, all of it a hole: what the guest reads of it.
const DISK: u64 = 16 << 20;

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new one in the directory for temporary files.
    pub(super) fn new() -> Result<Self, AttackError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("baton-attacks-{}-{number}", process::id());
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| AttackError::Scratch {
            path: path.clone(),
            source,
        })?;
        Ok(Self { path })
    }

    /// Puts a run of `attack` there; the path of the file with the guests.
    pub(super) fn prepare(&self, attack: Attack, guests: &str) -> Result<PathBuf, AttackError> {
        let write = |name: &str, content: &[u8]| {
            let path = self.path.join(name);
            match fs::write(&path, content) {
                Ok(()) => Ok(path),
                Err(source) => Err(AttackError::Scratch { path, source }),
            }
        };
        for path in (0..attack.disks()).map(|number| self.path.join(disk(number))) {
            let sparse = |path: &Path| File::create(path)?.set_len(DISK);
            sparse(&path).map_err(|source| AttackError::Scratch { path, source })?;
        }
        write(KERNEL, guest_tests::GUEST_ELF)?;
        write("host.toml", guests.as_bytes())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left for whoever cleans the directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}
