//! The vCPUs of a guest whose pool is another process: each has a thread, which obeys the executors of the pool
//! through a page (`baton-link`).
//!
//! A thread is in one of these states. *Commanded*, it runs the vCPU when the pool commands it, and waits for the
//! next command otherwise. *Asleep*, by a command too, it sleeps with the halted vCPU in `KVM_RUN` until an
//! interrupt. *Alone*, while the guest has no pool, it runs the vCPU whenever the host's scheduler lets it. Or it runs
//! nothing, because the guest was paused when its pool went.
//!
//! | file | idea |
//! |---|---|
//! | `threads.rs` | the threads of a guest, and how they are made to obey a pool or to run alone |
//! | `phase.rs` | from which pool a thread takes commands, or that it takes none |
//! | `vcpu_thread.rs` | what a thread does in each state |
//! | `current_vcpu.rs` | the vCPU of a thread, which another one replaces when the guest starts again |
//! | `server.rs` | carrying out commands |
//! | `idle_cpus.rs` | on which host CPUs a thread is without a command |
//! | `kicks.rs` | what ends a command early |
//! | `shown.rs` | what the guest is shown of it |

mod current_vcpu;
mod idle_cpus;
mod kicks;
mod phase;
mod server;
mod shown;
mod threads;
mod vcpu_thread;

pub use phase::PoolLost;
pub use threads::{CommandedVcpus, StartsAgain, ThreadLost};
