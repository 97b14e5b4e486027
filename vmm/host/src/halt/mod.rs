//! Exact halts and wakes with KVM's own interrupt controller.
//!
//! With the controller in the kernel, a halted vCPU sleeps inside `KVM_RUN` and an interrupt wakes
//! it there: it runs on without the policy having picked it, and while it sleeps, its executor
//! sleeps with it. Two things give the policy both moments:
//!
//! * [`HaltSignal`]: the context switch by which a vCPU goes to sleep signals the executor's own
//!   thread, and `KVM_RUN` returns with the vCPU halted.
//! * A bed (`vcpu_sleep.rs`), in a thread of its own ([`Berth`]) or of the vCPU's: a halted vCPU sleeps on
//!   there. When it wakes, `KVM_RUN` ends before it runs on (`exit_on_wake.rs`), and the interrupt waits
//!   until the policy runs it. An executor with nothing else to run keeps the vCPU and lets it nap
//!   (`sleep_in_place.rs`) on its own thread, in the same way.
//!
//! ```text
//!   executor: KVM_RUN -- HLT --> sleeps -- HaltSignal --> Interrupted, is_halted() -- put --> Berth
//!   policy <-- Woken -- exit on wake <-- interrupt <-- KVM_RUN sleeps <-------------------'
//! ```

mod cpu_meter;
mod exit_on_halt;
mod exit_on_wake;
mod halt_thread;
mod interrupt_sleep;
mod pending;
mod perf_signal;
mod runaway_guard;
mod short_slice;
pub(crate) mod sleep_in_place;
mod sleep_slot;
mod stop_detection;
mod tracepoints;
mod vcpu_sleep;
mod wake_events;
mod wake_step;

pub(crate) use cpu_meter::Spent;
pub use exit_on_halt::{HaltSignal, HaltSignalError, host_preemptions};
pub use exit_on_wake::ExitOnWake;
pub use halt_thread::{Berth, BerthEnd, BerthError};
pub(crate) use short_slice::{prompt_for_now, wake_promptly};
pub(crate) use vcpu_sleep::{Bed, Bedding};
pub use wake_events::{WakeEventsError, check_wake_events};
pub use wake_step::{WakeStepError, check_wake_step};

use kvm_bindings::{
    KVM_MP_STATE_AP_RESET_HOLD, KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_UNINITIALIZED,
};

/// Whether a vCPU in run state `mp_state` (`KVM_MP_STATE_*`) sleeps in `KVM_RUN` until an
/// interrupt or, if it waits to be started, a start-up message: whether it has nothing to run.
#[must_use]
pub fn is_halted(mp_state: u32) -> bool {
    matches!(
        mp_state,
        KVM_MP_STATE_HALTED
            | KVM_MP_STATE_UNINITIALIZED
            | KVM_MP_STATE_INIT_RECEIVED
            | KVM_MP_STATE_AP_RESET_HOLD
    )
}
