//! Why another process or its threads cannot be watched.

use std::io;

/// The peer or one of its threads could not be found.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The process has ended.
    #[error("the process at the other end of the control socket has ended")]
    Ended,
    /// The process has no such thread.
    #[error("process {pid} has no thread {tid}; a guest names the threads of its own vCPUs only")]
    NoThread {
        /// The process.
        pid: i32,
        /// The thread that it named.
        tid: i32,
    },
    /// The number is none of a signal for the use of programs.
    #[error("signal {0} cannot be a kick; use a real-time signal")]
    Signal(i32),
    /// The host refused.
    #[error(
        "the host does not let the pool watch process {pid}: {error}; check the pool's capabilities"
    )]
    Host {
        /// The process.
        pid: i32,
        /// What the kernel answered.
        error: io::Error,
    },
}
