//! A directory for the files of one run.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

/// A file of a run could not be written.
#[derive(Debug, Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct ScratchError {
    /// Path of the file.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

impl ScratchError {
    /// For `map_err` on an attempt to write `path`.
    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self { path, source }
    }
}

/// A directory that is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub(crate) struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Creates a directory below the directory for temporary files. `what` is a part of its name.
    ///
    /// # Errors
    /// If the host refuses.
    pub(crate) fn new(what: &str) -> Result<Self, ScratchError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("baton-{what}-{}-{number}", process::id());
        let path = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(ScratchError::write(&path))?;
        Ok(Self(path))
    }

    /// The path of the file `name` in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the file `name`, and returns its path.
    ///
    /// # Errors
    /// If the host refuses.
    pub(crate) fn write(
        &self,
        name: impl AsRef<Path>,
        content: &[u8],
    ) -> Result<PathBuf, ScratchError> {
        let path = self.join(name);
        fs::write(&path, content).map_err(ScratchError::write(&path))?;
        Ok(path)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // A failure leaves a file in a directory that the system cleans.
        let _ = fs::remove_dir_all(&self.0);
    }
}
