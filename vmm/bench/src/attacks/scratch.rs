//! The files of a run: the configuration of its guests, their kernel and their disks.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::attack::{Attack, KERNEL, disk};
use crate::error::BenchError;

/// Length of a disk in bytes; its file is one hole.
const DISK: u64 = 16 << 20;

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates a directory below the directory for temporary files.
    pub(super) fn new() -> Result<Self, BenchError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("baton-attacks-{}-{number}", process::id());
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(BenchError::write(&path))?;
        Ok(Self { path })
    }

    /// Writes the files of a run of `attack`. Returns the path of the configuration, whose text is `guests`.
    pub(super) fn prepare(&self, attack: Attack, guests: &str) -> Result<PathBuf, BenchError> {
        let write = |name: &str, content: &[u8]| {
            let path = self.path.join(name);
            fs::write(&path, content).map_err(BenchError::write(&path))?;
            Ok(path)
        };
        for path in (0..attack.disks()).map(|number| self.path.join(disk(number))) {
            let sparse = |path: &Path| File::create(path)?.set_len(DISK);
            sparse(&path).map_err(BenchError::write(&path))?;
        }
        write(KERNEL, guest_tests::GUEST_ELF)?;
        write("host.toml", guests.as_bytes())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure leaves a file in a directory that the system cleans.
        let _ = fs::remove_dir_all(&self.path);
    }
}
