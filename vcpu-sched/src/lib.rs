//! A deadline scheduler for vCPUs, with split contexts and proxy execution.
//!
//! Pure policy: no KVM, no threads, no clock (time is an argument), no I/O, and no allocation once
//! the vCPUs are added, but for CPUs that leave the pool or come back. The owner of the host CPUs calls it:
//!
//! ```
//! use vcpu_sched::{Claim, Config, CpuId, Hints, Reservation, Scheduler, Stop, Wait, WaitKind};
//!
//! let mut pool = Scheduler::new(Config::new(1));
//! let guest = pool.add_guest();
//! let ms = 1_000_000;
//! // A holder with little time, and a waiter with plenty.
//! let small = Claim::Reserved(Reservation::hard(ms, 100 * ms)?);
//! let large = Claim::Reserved(Reservation::hard(5 * ms, 10 * ms)?);
//! let holder = pool.add_vcpu(guest, small, None)?;
//! let waiter = pool.add_vcpu(guest, large, None)?;
//!
//! // The holder takes a lock and uses up its millisecond: throttled for the other 99.
//! pool.wake(holder, 0);
//! assert_eq!(pool.pick(CpuId(0), 0).unwrap().run, holder);
//! let holding = Hints { depth: 1, ..Hints::default() };
//! pool.stop(CpuId(0), Stop::Preempted, holding, ms, ms);
//!
//! // The waiter wants the lock, and says so. Its budget carries the holder.
//! pool.wake(waiter, ms);
//! assert_eq!(pool.pick(CpuId(0), ms).unwrap().run, waiter);
//! let wait = Wait { kind: WaitKind::Spin, lock: 0x1000, holder, holder_releases: 0 };
//! let waiting = Hints { wait: Some(wait), ..Hints::default() };
//! pool.stop(CpuId(0), Stop::Rang, waiting, 1_000, ms + 1_000);
//! let decision = pool.pick(CpuId(0), ms + 1_000).unwrap();
//! assert_eq!((decision.donor, decision.run), (waiter, holder));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start reading at `proxy.rs`, which is the idea, or at `scheduler.rs`, which lists the rules.

mod admission;
mod blocked_on;
mod cbs;
mod contexts;
mod counters;
mod cpuset;
mod debt;
mod defer;
mod disturbance;
mod events;
mod fair;
mod heap;
mod helper;
mod ids;
mod invariants;
mod lists;
mod pick;
mod pool_cpus;
mod preempt;
mod proxy;
mod release;
mod reservation;
mod reservation_text;
mod scheduler;
pub mod sim;
mod stop;
mod timers;
mod view;
mod waiting;
mod wake;

pub use admission::AdmissionError;
pub use blocked_on::{Hints, Wait, WaitKind};
pub use counters::Counters;
pub use cpuset::{CpuSet, MAX_CPUS};
pub use events::{Event, Events};
pub use helper::{Grant, HelperOrder};
pub use ids::{CpuId, GuestId, HelperId, Ns, VcpuId};
pub use pick::Decision;
pub use proxy::MAX_CHAIN;
pub use reservation::{Claim, Exhaustion, MAX_PERIOD, MIN_BUDGET, Reservation, ReservationError};
pub use reservation_text::{
    ParseDurationError, ParseReservationError, format_ns, parse_duration_ns,
};
pub use scheduler::{Config, MAX_PINNINGS, MAX_VCPUS, Scheduler};
pub use stop::Stop;
pub use view::{CpuView, Doing, VcpuView};
