//! Exact halts and wakes with KVM's own interrupt controller.
//!
//! With the controller in the kernel, a halted vCPU sleeps inside `KVM_RUN`, and an interrupt wakes the vCPU
//! there. Without further measures, the vCPU runs on without the policy having picked it, and while it
//! sleeps, its executor sleeps with it. Two mechanisms make both moments exits of `KVM_RUN`:
//!
//! * [`HaltSignal`]: the context switch by which a vCPU goes to sleep signals the executor's own
//!   thread, and `KVM_RUN` returns with the vCPU halted.
//! * `VcpuSleep`: the halted vCPU sleeps on in another `KVM_RUN`, on a thread of its own
//!   ([`HaltThread`]) or on the thread that always runs it. When it wakes, that `KVM_RUN` returns before the
//!   guest runs on (`exit_on_wake.rs`), and the interrupt stays pending until the policy picks the vCPU. An
//!   executor with nothing else to run keeps the vCPU and sleeps in the same way itself
//!   (`sleep_in_place.rs`).
//!
//! ```text
//!   executor: KVM_RUN -- HLT --> sleeps -- HaltSignal --> Interrupted, is_halted() -- put --> HaltThread
//!   policy <-- Woken -- exit on wake <-- interrupt <-- KVM_RUN sleeps <-------------------------'
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `exit_on_halt.rs` | a halt ends `KVM_RUN` |
//! | `exit_on_wake.rs` | a wake ends `KVM_RUN`, by tracepoints (`wake_events.rs`, `tracepoints.rs`) or debug flags (`wake_step.rs`); `pending.rs` |
//! | `vcpu_sleep.rs` | one vCPU sleeps until it wakes or another thread interrupts its sleep (`interruption.rs`, `sleep_slot.rs`, `interrupt_sleep.rs`) |
//! | `halt_thread.rs` | a thread on which one vCPU sleeps |
//! | `sleep_in_place.rs` | a vCPU sleeps on its executor's thread |
//! | `halt_setup.rs` | what a thread needs so that vCPUs can sleep on it |
//! | `runaway_guard.rs` | bounds a vCPU that runs on after it woke |
//! | `perf_signal.rs` | a perf event that signals its thread |
//! | `cpu_meter.rs`, `stop_detection.rs` | CPU time of a sleep; a process that was stopped meanwhile |
//! | `thread_priority.rs` | the priorities of threads where executors have one |
//! | `short_slice.rs` | a thread that gets a host CPU soon after it wakes |

mod cpu_meter;
mod error;
mod exit_on_halt;
mod exit_on_wake;
mod halt_setup;
mod halt_thread;
mod interrupt_sleep;
mod interruption;
mod mp_state;
mod pending;
mod perf_signal;
mod runaway_guard;
mod short_slice;
mod sleep_in_place;
mod sleep_slot;
mod stop_detection;
mod thread_priority;
mod tracepoints;
mod vcpu_sleep;
mod wake_events;
mod wake_step;

pub(crate) use cpu_meter::CpuMeter;
pub use error::{HaltSignalError, HaltThreadError};
pub use exit_on_halt::HaltSignal;
pub use exit_on_wake::ExitOnWake;
pub(crate) use halt_setup::HaltSetup;
pub use halt_thread::HaltThread;
pub(crate) use interruption::Interruption;
pub use mp_state::is_halted;
pub(crate) use sleep_in_place::{InPlaceEnd, SleepInPlace};
pub use thread_priority::ThreadPriority;
pub use vcpu_sleep::SleepEnd;
pub(crate) use vcpu_sleep::{VcpuSleep, sleep};
pub use wake_events::{WakeEventsError, check_wake_events, read_tracepoints};
pub use wake_step::{WakeStepError, check_wake_step};
