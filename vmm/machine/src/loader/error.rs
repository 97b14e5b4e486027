//! Why a kernel could not be loaded.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::loaded::Entry;

/// A kernel could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the kernel {path}: {source}", path = .path.display())]
    Read {
        /// Path as given.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The file is longer than any kernel.
    #[error("the kernel {path} is larger than 1G", path = .0.display())]
    TooLarge(PathBuf),
    /// The file is not a kernel that can be booted here.
    #[error(
        "the kernel {what} cannot be booted: {why}; give a static 64-bit x86 ELF executable (vmlinux) or \
         a bzImage (vmlinuz)"
    )]
    NotAKernel {
        /// Which kernel.
        what: String,
        /// What is wrong with the file.
        why: String,
    },
    /// The file ends before the end of the kernel.
    #[error(
        "the kernel {what} is cut short: it has {size} bytes, and by its header at least {needed}; copy or \
         build it again"
    )]
    CutShort {
        /// Which kernel.
        what: String,
        /// Bytes of the file.
        size: u64,
        /// Bytes that the file must have.
        needed: u64,
    },
    /// The kernel's entry is outside of what it loads.
    #[error("the kernel {what} cannot be started: its {entry} is not in what it loads above 1M")]
    NoEntry {
        /// Which kernel.
        what: String,
        /// The entry.
        entry: Entry,
    },
    /// The kernel does not fit into memory.
    #[error(
        "the kernel {what} does not fit: it must lie between 1M and the end of the guest's memory"
    )]
    DoesNotFit {
        /// Which kernel.
        what: String,
    },
}

impl LoadError {
    pub(super) fn not_a_kernel(what: &str, why: impl ToString) -> Self {
        Self::NotAKernel {
            what: what.to_owned(),
            why: why.to_string(),
        }
    }

    pub(super) fn does_not_fit(what: &str) -> Self {
        Self::DoesNotFit {
            what: what.to_owned(),
        }
    }
}
