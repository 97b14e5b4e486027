//! A deadline scheduler for vCPUs, with split contexts and proxy execution.
//!
//! Pure policy: no KVM, no threads, no clock (time is an argument), no I/O, and no allocation once the vCPUs
//! are added, except when guests, vCPUs or CPUs come, go or change. The owner of the host CPUs calls it:
//!
//! ```
//! use vcpu_sched::{
//!     Config, CpuId, CpuTime, Hints, Reservation, SchedParams, Scheduler, StopReason, Wait, WaitKind,
//! };
//!
//! let mut pool = Scheduler::new(Config::new(1));
//! let guest = pool.add_guest();
//! let ms = 1_000_000;
//! // A holder with little time, and a waiter with plenty.
//! let small = SchedParams::Reserved(Reservation::hard(ms, 100 * ms)?);
//! let large = SchedParams::Reserved(Reservation::hard(5 * ms, 10 * ms)?);
//! let holder = pool.add_vcpu(guest, small, None)?;
//! let waiter = pool.add_vcpu(guest, large, None)?;
//!
//! // The holder takes a lock and uses up its millisecond: throttled for the other 99.
//! pool.wake(holder, 0);
//! assert_eq!(pool.pick(CpuId(0), 0).unwrap().curr, holder);
//! let holding = Hints { depth: 1, ..Hints::default() };
//! pool.stop(CpuId(0), StopReason::Preempted, holding, CpuTime(ms), ms);
//!
//! // The waiter spins for the lock, and publishes that. Its budget carries the holder.
//! pool.wake(waiter, ms);
//! assert_eq!(pool.pick(CpuId(0), ms).unwrap().curr, waiter);
//! let wait = Wait { kind: WaitKind::Spin, lock: 0x1000, holder, holder_releases: 0 };
//! let waiting = Hints { wait: Some(wait), ..Hints::default() };
//! pool.stop(CpuId(0), StopReason::Rang, waiting, CpuTime(1_000), ms + 1_000);
//! let decision = pool.pick(CpuId(0), ms + 1_000).unwrap();
//! assert_eq!((decision.donor, decision.curr), (waiter, holder));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at `proxy.rs`, which is the idea, or at `scheduler.rs`, which lists the rules. `classes/` has
//! the arithmetic of reservations and fair shares, `state/` the tables, `rules/` what happens to them, and
//! [`sim`] a simulator.

mod audit;
mod classes;
mod config;
mod counters;
mod counting;
mod cpuset;
mod events;
mod ids;
mod invariants;
mod normal_form;
mod normalise;
mod policy;
mod policy_kind;
mod proxy;
mod round_robin;
mod rules;
mod scheduler;
pub mod sim;
mod state;
mod table;
mod view;

pub use classes::admission::AdmissionError;
pub use classes::reservation::{
    Exhaustion, MAX_PERIOD, MIN_BUDGET, Reservation, ReservationError, SchedParams,
};
pub use classes::reservation_text::{
    ParseDurationError, ParseReservationError, format_ns, parse_duration_ns,
};
pub use config::Config;
pub use counters::{CounterField, CounterUnit, Counters};
pub use cpuset::{CpuSet, MAX_CPUS};
pub use events::{Event, Events};
pub use ids::{CpuId, CpuTime, GuestId, MAX_PINNINGS, MAX_VCPUS, Ns, VcpuId, WorkerId};
pub use policy::Policy;
pub use policy_kind::PolicyKind;
pub use proxy::MAX_CHAIN;
pub use round_robin::RoundRobin;
pub use rules::pick::Decision;
pub use rules::pool_cpus::CpuRemovalError;
pub use rules::stop::StopReason;
pub use rules::suspect::Suspects;
pub use scheduler::Scheduler;
pub use state::blocked_on::{Hints, Wait, WaitKind};
pub use state::worker_table::{Grant, WorkerOrder};
pub use view::{CpuView, Doing, VcpuView};
