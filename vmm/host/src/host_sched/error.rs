//! Why a run under the host's scheduler could not start.

use std::io;

use baton_config::Reservation;
use thiserror::Error;

/// The host's scheduler could not be used.
#[derive(Debug, Error)]
pub enum HostSchedError {
    /// The thread of a vCPU could not be started.
    #[error("cannot start a thread for a vCPU: {0}")]
    Thread(io::Error),
    /// The thread of a vCPU could not be pinned.
    #[error("a vCPU's thread cannot be pinned to host CPUs {cpus}: {source}")]
    Affinity {
        /// The host CPUs.
        cpus: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The pool is smaller than the host, which `SCHED_DEADLINE` does not permit.
    #[error(
        "SCHED_DEADLINE takes only threads that may use every host CPU ({all}), and these may use \
         {pool}: leave --host-cpus and host_cpus out, start Baton without taskset or a cpuset, or use \
         --sched host"
    )]
    DeadlinePinned {
        /// All CPUs of the host.
        all: String,
        /// The CPUs of the pool.
        pool: String,
    },
    /// The kernel refused `SCHED_DEADLINE` for a thread.
    #[error(
        "the host refused SCHED_DEADLINE {reservation} for vCPU {vcpu} of guest {guest} ({source}): \
         {advice}"
    )]
    Deadline {
        /// The guest's name.
        guest: String,
        /// Index of the vCPU.
        vcpu: u32,
        /// The reservation that was requested.
        reservation: Reservation,
        /// The kernel's reason.
        source: io::Error,
        /// What the user can do.
        advice: &'static str,
    },
    /// The signal that interrupts vCPUs could not be installed.
    #[error("cannot install the signal that interrupts vCPUs: {0}")]
    Signal(io::Error),
}
