//! Limits of resources.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::SandboxError;

/// The process leaves no image of its memory, starts no programs, and queues no messages.
pub(crate) fn set() -> Result<(), SandboxError> {
    for resource in [Resource::Core, Resource::Msgqueue] {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(resource, none).map_err(SandboxError::step("limits of resources"))?;
    }
    Ok(())
}
