//! Clocks, threads and scheduling of the host kernel.
//!
//! | module | what it has |
//! |---|---|
//! | `clock` | times and CPU times in nanoseconds, the time stamp counter |
//! | `thread` | ids, host CPUs, timer slack, accounting of the calling thread |
//! | `affinity` | which host CPUs a thread may use |
//! | `scheduling` | deadline reservations, real-time priorities and short slices |
//! | `version` | the running kernel's version |

mod affinity;
mod clock;
mod scheduling;
mod thread;
mod version;

pub use affinity::{affinity, affinity_of, set_affinity, set_affinity_of};
pub use clock::{
    accounting_tick_ns, boottime_ns, children_cpu_ns, coarse_monotonic_ns, monotonic_ns,
    process_cpu_ns, rdtsc, thread_cpu_ns,
};
pub use scheduling::{
    FormerScheduling, SchedPolicy, end_fifo_policy_of, policy_of, set_deadline_policy,
    set_fair_slice, set_fifo_policy, set_fifo_policy_of,
};
pub use thread::{
    ContextSwitches, SchedStat, context_switches, current_cpu, schedstat_path, set_exact_timers,
    thread_id, thread_schedstat,
};
pub use version::{kernel_version, parse_version};
