//! Why a process cannot enter its sandbox.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

/// The process cannot enter its sandbox. It may have given up some of its rights already, and should end.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The process has several threads, of which each would have to enter.
    #[error("the sandbox has to be entered before the process starts threads, and it has {0}")]
    Threads(usize),
    /// The host lets this user have no namespaces.
    #[error(
        "this host does not let this user have a sandbox, because it permits no user namespaces ({0}): permit them \
         (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), start the guest as root, or run it \
         without a sandbox (--no-sandbox)"
    )]
    Namespaces(Errno),
    /// A path that has to stay reachable cannot be.
    #[error("{path} cannot be made reachable in the guest's sandbox: {source}")]
    Reach {
        /// The path.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A user has to be another one, which only root can do.
    #[error("only root can run a guest as another user: leave sandbox_user out")]
    NotRoot,
    /// The kernel refused a step.
    #[error(
        "the guest's sandbox cannot be entered ({step}: {source}): --no-sandbox runs the guest without it"
    )]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl SandboxError {
    /// The error for a step that failed.
    pub(crate) fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Step {
            step,
            source: source.into(),
        }
    }
}
