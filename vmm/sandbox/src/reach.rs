//! A file or a directory that stays reachable.

use std::path::{Path, PathBuf};

/// What the process may do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read it, and connect to the sockets in it.
    Read,
    /// Write it too; in a directory, create and remove.
    Write,
    /// Use it as a device.
    Device,
}

/// A path that stays reachable, with all that is below it. One that does not exist stays away, and whoever opens it
/// later gets the error that he would have got without a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
}

impl Reach {
    /// `path` can be read. Sockets in it can be connected to.
    #[must_use]
    pub fn read(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), Access::Read)
    }

    /// `path` can be read and written. If it is a directory, files can be created in it.
    #[must_use]
    pub fn write(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), Access::Write)
    }

    /// `path` is a device, or a directory of devices.
    #[must_use]
    pub fn device(path: impl Into<PathBuf>) -> Self {
        Self::new(path.into(), Access::Device)
    }

    /// The directory in which `path` is can be written, because a file has to be created there.
    #[must_use]
    pub fn parent(path: &Path) -> Self {
        match path.parent() {
            Some(parent) if parent != Path::new("") => Self::write(parent),
            _ => Self::write("."),
        }
    }

    fn new(path: PathBuf, access: Access) -> Self {
        Self { path, access }
    }
}
