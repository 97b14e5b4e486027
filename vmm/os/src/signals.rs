//! All signals of this program: their numbers, what each of them does, and how they are sent and blocked.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGINT, SIGTERM, SIGHUP | ends the run as its own end would, with summary, trace and metrics (`stop_signals.rs`) |
//! | SIGHUP, for `baton pool` | has it read its grants again (`stop_signals.rs`) |
//! | SIGTSTP, SIGCONT | stops and continues; the terminal is given back, and taken again (`tty.rs`) |
//! | SIGQUIT, and what a fault raises | ends the process at once, with the terminal's modes as before (`crash.rs`) |
//! | [`RtSignal`] | ends a `KVM_RUN`: three real-time signals, each with a purpose and a handler of its own |
//! | [`WAKE_TRAP`] (SIGTRAP) | ends the `KVM_RUN` of a halted vCPU that wakes up |
//! | SIGIO | ends a `KVM_RUN` too: the kernel sends it in place of a perf event's signal |
//! | SIGXFSZ, SIGXCPU, SIGUSR1 and others | nothing (`ignored.rs`) |

mod crash;
mod disposition;
mod ignored;
pub(crate) mod mask;
mod numbers;
mod stop_signals;

pub use disposition::{Disposition, disposition, install_empty_handler};
pub use mask::{SavedMask, block, unblock, wait_for};
pub use numbers::{RtSignal, WAKE_TRAP, send};
pub use stop_signals::{StopSignals, prepare, suspend};
