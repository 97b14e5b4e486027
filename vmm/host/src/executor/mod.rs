//! Executors: Baton's own policy decides, on every host CPU of the pool, which vCPU runs.
//!
//! | file | idea |
//! |---|---|
//! | `main_loop.rs` | the loop: have the policy decide, run, account, handle the exit, sleep |
//! | `exits.rs`, `exit_latency.rs`, `doorbell_storm.rs` | what follows an exit |
//! | `switch.rs` | what guests are shown of a switch from one vCPU to another |
//! | `time_account.rs` | what an executor did with the time of its CPU |
//! | `pool.rs`, `pool_settings.rs`, `pool_state.rs`, `vcpu_places.rs` | the policy and the vCPUs that nothing runs, under one lock |
//! | `guest_table.rs`, `pool_guest.rs`, `worker_table.rs`, `guest_names.rs` | the guests of a pool, the threads of their devices, and their names |
//! | `pool_handle.rs`, `join.rs`, `policy_join.rs`, `join_error.rs`, `admission.rs`, `change.rs`, `terms.rs`, `guest_error.rs`, `allowed_cpus.rs` | guests join, leave, pause and change while others run |
//! | `after_unlock.rs` | what has to wait until that lock is free |
//! | `owned_vcpu.rs`, `local_vcpu.rs`, `interrupt_sleep.rs`, `assignment.rs`, `policy_ids.rs` | a vCPU that was taken from the pool, what it is to do, the policy's ids of its guest |
//! | `kick.rs`, `kick_target.rs`, `kick_handler.rs` | making an executor have the policy decide again, without losing a kick |
//! | `run_loop.rs` | the loop around `KVM_RUN` (`kicks.rs`, `timer.rs`, `presence.rs`, halts) |
//! | `vcpu_runner.rs`, `threaded.rs` | running a vCPU on the executor's thread, or on its own (`vcpu_thread.rs`, `vcpu_threads.rs`, `new_vcpu.rs`, `handoff.rs`) |
//! | `foreign_vcpu.rs`, `foreign_run.rs`, `foreign_sleep.rs`, `watched_sleepers.rs` | vCPUs whose threads are in other processes, and how they run and sleep |
//! | `foreign_guest.rs`, `foreign_account.rs`, `foreign_check.rs` | the processes of their guests: failures, and CPU time beside the vCPUs |
//! | `foreign_join.rs`, `foreign_table.rs` | guests of other processes join and go |
//! | `halt_threads.rs` | the threads on which halted vCPUs sleep until an interrupt wakes them |
//! | `workers.rs`, `cpu_grant.rs` | device threads, which work when the policy grants them a CPU |
//! | `probes.rs`, `observers.rs`, `metrics_source.rs`, `control_source.rs`, `pool_reader.rs` | timeline, trace, metrics and control socket |
//! | `host_cpu_watcher.rs`, `host_cpu_report.rs`, `usable_cpus.rs`, `own_cpu.rs`, `pins.rs` | host CPUs that cannot be used any more, and threads that were pinned there |
//! | `late_halts.rs` | what is not run on a host where halts are noticed late |
//! | `executor_priority.rs` | whether the host permits a priority |
//! | `start.rs`, `executors.rs`, `executor_threads.rs` | from a configuration to executors, and their end |
//! | `pool_cpus.rs` | host CPUs that a pool gets and gives up while it runs |

mod admission;
mod after_unlock;
mod allowed_cpus;
mod assignment;
mod change;
mod control_source;
mod cpu_grant;
mod doorbell_storm;
mod error;
mod executor_priority;
mod executor_threads;
mod executors;
mod exit_latency;
pub(crate) mod exits;
mod foreign_account;
mod foreign_check;
mod foreign_guest;
mod foreign_join;
mod foreign_priority;
mod foreign_run;
mod foreign_sleep;
mod foreign_table;
mod foreign_vcpu;
mod guest_error;
mod guest_key;
mod guest_names;
mod guest_table;
mod halt_threads;
mod handoff;
mod host_cpu_report;
mod host_cpu_watcher;
mod interrupt_sleep;
mod join;
mod join_error;
mod kick;
pub(crate) mod kick_handler;
mod kick_target;
pub(crate) mod kicks;
mod late_halts;
mod local_vcpu;
mod looks;
mod main_loop;
mod metrics_source;
mod new_vcpu;
mod observers;
mod own_cpu;
mod owned_vcpu;
pub(crate) mod pins;
mod policy_ids;
mod policy_join;
mod pool;
mod pool_cpus;
mod pool_guest;
pub(crate) mod pool_handle;
mod pool_reader;
mod pool_settings;
mod pool_state;
mod presence;
mod probes;
pub(crate) mod run_loop;
mod start;
mod switch;
mod terms;
mod threaded;
mod time_account;
mod timer;
mod usable_cpus;
mod vcpu_places;
mod vcpu_runner;
mod vcpu_thread;
mod vcpu_threads;
mod watched_sleepers;
mod worker_table;
mod workers;

pub use crate::report::ExecutorReport;
pub use change::VcpuChange;
pub use error::ExecutorError;
pub use executor_priority::PriorityError;
pub use foreign_guest::{GuestNumber, ProcessReport};
pub use guest_error::GuestCallError;
pub use guest_key::{GuestIdentity, GuestKey};
pub use join_error::{JoinError, JoinErrorKind, RefusedJoin};
pub(crate) use late_halts::check_threads;
pub use late_halts::{LateHaltsError, LateHaltsReason, check_late_halts};
pub use pool_cpus::{PoolCpuError, PoolCpus};
pub use pool_handle::{GuestAccount, GuestListed, GuestState, PoolHandle};
pub use pool_reader::PoolReader;
pub use start::{start, start_pool};
pub use terms::VcpuListed;
