//! Why a request fails, as the driver reads it in the request's status.

use std::io;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP};

use super::super::request::NoMemory;

/// A request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// The request breaks a rule, or the host could not carry it out.
    Failed,
    /// The device, the disk or the negotiated features have no such request.
    Unsupported,
}

impl RequestError {
    pub(super) fn status(self) -> u32 {
        match self {
            Self::Failed => VIRTIO_BLK_S_IOERR,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
        }
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => Self::Unsupported,
            _ => Self::Failed,
        }
    }
}

impl From<NoMemory> for RequestError {
    fn from(_: NoMemory) -> Self {
        Self::Failed
    }
}

/// Fails the request unless `kept`, a rule that it must keep.
pub(super) fn require(kept: bool) -> Result<(), RequestError> {
    match kept {
        true => Ok(()),
        false => Err(RequestError::Failed),
    }
}
