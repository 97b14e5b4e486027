//! A discrete-event simulator of host CPUs and guests around the policy.
//!
//! It calls the policy exactly as an executor on KVM does, in virtual time, and is deterministic:
//! the same input gives the same trace. The guests follow the paravirt ABI: a vCPU publishes for which
//! vCPU it waits, rings when that one is not running, and rings when it releases a lock while it is carried
//! or deferred. A [`Liar`] does the opposite: it also wakes any vCPU and hands over locks that it does not
//! hold.
//!
//! ```
//! use vcpu_sched::sim::{Costs, LockKind, Script, Simulation, Step};
//! use vcpu_sched::{SchedParams, Config, Reservation};
//!
//! let ms = 1_000_000;
//! let mut sim = Simulation::new(Config::new(1), Costs::default());
//! let guest = sim.guest();
//! let lock = sim.lock(guest, LockKind::Ticket);
//! let small = SchedParams::Reserved(Reservation::hard(ms, 100 * ms)?);
//! let large = SchedParams::Reserved(Reservation::hard(5 * ms, 10 * ms)?);
//! // Takes the lock for 2 ms with 1 ms of budget.
//! let holder = Script::once([Step::Lock(lock), Step::Compute(2 * ms), Step::Unlock(lock)]);
//! let waiter = Script::once([Step::Sleep(ms / 2), Step::Lock(lock), Step::Unlock(lock)]);
//! sim.vcpu(guest, small, holder)?;
//! let waiter = sim.vcpu(guest, large, waiter)?;
//! let outcome = sim.run(1_000 * ms);
//! assert!(outcome.vcpu(waiter).wait_max_ns <= 2 * ms - ms / 2, "and not 100 ms");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod engine;
mod host_cpu;
mod liar;
mod lock;
mod outcome;
mod random;
mod script;
mod world;

pub use crate::audit::audit;
pub use crate::normal_form::NormalForm;
pub use crate::normalise::normal_form;
pub use engine::{Costs, Simulation};
pub use liar::Liar;
pub use lock::{LockId, LockKind};
pub use outcome::{Outcome, VcpuOutcome};
pub use random::SplitMix64;
pub use script::{Behaviour, Script, Step};
