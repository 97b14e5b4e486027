//! What can go wrong between the two processes.

use vcpu_sched::Ns;

use crate::answer::AnswerError;
use crate::command::{CommandError, CommandKind};

/// The other process wrote what makes no sense. A process of Baton never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of the command or answer is neither the last one nor the next.
    #[error("number {actual} stands where {expected} belongs")]
    Number {
        /// The number in the page.
        actual: u32,
        /// The number that is due.
        expected: u32,
    },
    /// The answer makes no sense.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The command makes no sense.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A thread was woken this often during one wait, for nothing.
    #[error("{0} wake-ups came without an answer")]
    Wakeups(u32),
}

/// A hand-over failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other process is gone, or has closed its control socket.
    #[error("the process at the other end of the link is gone")]
    Gone,
    /// The other process broke the protocol. Nothing that it writes is believed any more.
    #[error("the process at the other end of the link broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The vCPU's thread did not come back in time. Its process has to be stopped.
    #[error("the vCPU's thread is {late_ns} ns late; its process has to be stopped")]
    Overdue {
        /// Time since it had to be back, ns.
        late_ns: Ns,
    },
    /// The vCPU's thread ends, and with it mostly its process, which has been killed.
    #[error("the vCPU's thread has ended")]
    ThreadEnded,
    /// The vCPU's thread has used CPU time without a command to run. Its process has to be stopped.
    #[error("the vCPU's thread has run for {0} ns that the pool had not granted")]
    Uncommanded(Ns),
    /// A command was given before the last one was answered, which is a bug of this program.
    #[error("the command {0:?} has not been answered yet")]
    Unanswered(CommandKind),
    /// An answer was given or waited for without a command, which is a bug of this program.
    #[error("there is no command to answer")]
    NoCommand,
}
