//! All signal handling: requests to end as a file to poll, what stops and continues the process, what would
//! end it for nothing, and the kick that interrupts `KVM_RUN`.

mod crash;
mod ignored;
mod stop_signals;

pub use stop_signals::{StopSignals, install_kick, kick, kick_signal, prepare, send};
