//! Why the boot structures could not be written.

use std::fmt::Display;

use thiserror::Error;

/// The boot structures could not be written.
#[derive(Debug, Error)]
pub enum BootError {
    /// A write to guest memory failed.
    #[error("cannot write the boot structures into guest memory: {0}")]
    Write(String),
    /// The kernel does not accept the command line.
    #[error("the kernel command line is not usable: {0}")]
    Cmdline(String),
}

impl BootError {
    pub(super) fn write(error: impl Display) -> Self {
        Self::Write(error.to_string())
    }

    pub(super) fn cmdline(error: impl Display) -> Self {
        Self::Cmdline(error.to_string())
    }
}
