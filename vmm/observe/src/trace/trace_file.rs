//! The file of a trace before the run is known to start. Its contents are kept until then.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::TraceError;

/// A file that can be written and has not been changed yet. If it was created for this run, it is removed
/// again when this is dropped before the run starts.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: Option<File>,
    created: bool,
}

impl TraceFile {
    /// Opens or creates the file. If it is a pipe, waits for a reader.
    ///
    /// # Errors
    /// [`TraceError::File`] if the host refuses.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let new = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, created) = match new {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The path may be a symbolic link to a file that does not exist yet.
                let mut options = OpenOptions::new();
                let there = options.write(true).create(true).truncate(false).open(path);
                (there, false)
            }
            new => (new, true),
        };
        let file = file.map_err(|source| TraceError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            created,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Empties the file, because the run starts, and hands it over. `None` if it was handed over before.
    pub(super) fn begin(&mut self) -> io::Result<Option<File>> {
        if let Some(file) = &self.file
            && file.metadata()?.is_file()
        {
            file.set_len(0)?;
        }
        Ok(self.file.take())
    }

    /// Whether the path still leads to this file.
    fn is_at_its_path(&self) -> bool {
        let id = |status: fs::Metadata| (status.dev(), status.ino());
        let own = self.file.as_ref().and_then(|file| file.metadata().ok());
        let there = fs::symlink_metadata(&self.path).ok();
        own.is_some() && own.map(id) == there.map(id)
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        if self.created && self.is_at_its_path() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("baton-trace-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_run_that_does_not_start_leaves_a_file_as_it_was_and_makes_none() {
        let there = path("there");
        fs::write(&there, "an old trace").expect("a file");
        drop(TraceFile::open(&there).expect("can be written"));
        assert_eq!(fs::read(&there).expect("a file"), b"an old trace");
        fs::remove_file(&there).expect("removed");

        drop(TraceFile::open(&there).expect("can be made"));
        assert!(!there.exists());
    }

    #[test]
    fn a_run_that_starts_begins_with_an_empty_file_and_keeps_it() {
        let there = path("begun");
        fs::write(&there, "an old trace").expect("a file");
        for _ in 0..2 {
            let mut trace = TraceFile::open(&there).expect("can be written");
            assert!(trace.begin().expect("emptied").is_some());
            drop(trace);
            assert_eq!(fs::metadata(&there).expect("a file").len(), 0);
        }
        fs::remove_file(&there).expect("removed");
        let mut trace = TraceFile::open(&there).expect("can be made");
        assert!(trace.begin().expect("emptied").is_some());
        drop(trace);
        fs::remove_file(&there).expect("it is kept");
    }

    #[test]
    fn a_file_that_took_the_place_of_ours_is_not_removed() {
        let there = path("taken");
        let trace = TraceFile::open(&there).expect("can be made");
        fs::remove_file(&there).expect("removed");
        fs::write(&there, "another's").expect("a file");
        drop(trace);
        assert_eq!(fs::read(&there).expect("a file"), b"another's");
        fs::remove_file(&there).expect("removed");
    }
}
