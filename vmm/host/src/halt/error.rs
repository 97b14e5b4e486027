//! What can be missing on a host for exact halts and wakes.

use std::io;

use baton_os::ready_thread::SpawnError;
use thiserror::Error;

/// Halts do not end `KVM_RUN` on this thread.
#[derive(Debug, Error)]
pub enum HaltSignalError {
    /// This user may not open perf events.
    #[error(
        "perf_event_open is not permitted, so the halt of a vCPU is noticed late: give the baton \
         binary CAP_PERFMON (sudo setcap cap_perfmon+ep), or run sudo sysctl \
         kernel.perf_event_paranoid=1{}; in a container, its seccomp profile must allow \
         perf_event_open too",
        .paranoid.map(|level| format!(" (it is {level})")).unwrap_or_default()
    )]
    NotPermitted {
        /// `kernel.perf_event_paranoid`, if readable.
        paranoid: Option<i32>,
    },
    /// The kernel was built without perf events.
    #[error(
        "this host's kernel has no perf events, so the halt of a vCPU is noticed late: use a \
         kernel with CONFIG_PERF_EVENTS"
    )]
    Unsupported,
    /// The signal would end the program, because it has no handler, or is not a real-time signal.
    #[error("signal {0} cannot announce halts: it has no handler, or is no real-time signal")]
    Signal(libc::c_int),
    /// A system call failed.
    #[error("cannot set up the signal that announces halts ({what}): {source}")]
    Host {
        /// The system call or request.
        what: &'static str,
        /// The host's reason.
        source: io::Error,
    },
}

/// A thread for halted vCPUs could not be set up.
#[derive(Debug, Error)]
pub enum HaltThreadError {
    /// The thread could not be started.
    #[error("cannot start a thread for halted vCPUs ({0}): raise the limit of threads (ulimit -u)")]
    Thread(io::Error),
    /// The thread's signals or timers could not be set up. Nothing would stop a vCPU that runs on there.
    #[error("cannot set up a CPU clock signal for halted vCPUs: {0}")]
    SetUp(io::Error),
    /// The signal that interrupts a sleep could not get its handler.
    #[error("cannot install the signal that wakes halted vCPUs: {0}")]
    Signal(io::Error),
}

impl From<SpawnError> for HaltThreadError {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Start(error) => Self::Thread(error),
            SpawnError::SetUp(error) => Self::SetUp(error),
        }
    }
}
