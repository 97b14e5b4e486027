//! The host CPUs of a pool that runs, and their change: the pool gets some and gives some up.
//!
//! | a host CPU that the pool gets | a host CPU that it gives up |
//! |---|---|
//! | its executor is started, and finds nothing to run | the policy gives it up, if all that is promised fits on the others |
//! | the policy has it, and kicks the executor | its executor is kicked, gives back what it runs, and ends |
//!
//! The places for host CPUs, and the tables with one row for each, are made when the pool starts.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use vcpu_sched::{CpuId, CpuRemovalError, CpuSet, VcpuId};

use super::executor_threads::ExecutorThreads;
use super::pool::Pool;
use super::pool_state::PoolState;
use baton_config::units::format_cpus;

/// A host CPU of a pool could not be changed, and all is as before.
#[derive(Debug, Error)]
pub enum PoolCpuError {
    /// The pool has no place for it.
    #[error(
        "host CPU {0} cannot be the pool's: the host did not have it, or had too many, when the pool started"
    )]
    NoPlace(usize),
    /// The pool has it.
    #[error("the pool has host CPU {0} already")]
    Taken(usize),
    /// The pool does not have it.
    #[error("the pool does not have host CPU {0}; it has {has}", has = format_cpus(.1))]
    NotThere(usize, Vec<usize>),
    /// The host refuses the executor.
    #[error("no executor can run on host CPU {cpu}: {source}")]
    Executor {
        /// The host CPU.
        cpu: usize,
        /// The host's reason.
        source: io::Error,
    },
    /// No other host CPU of the pool can be used.
    #[error("host CPU {0} is the last one of the pool that can be used; add another one first")]
    Last(usize),
    /// vCPUs may run nowhere else.
    #[error(
        "host CPU {cpu} cannot be given up, because it is the only one on which {vcpus} may run; pin to others first \
         (baton set --host-cpus)"
    )]
    Pinned {
        /// The host CPU.
        cpu: usize,
        /// The vCPUs.
        vcpus: String,
    },
    /// What is promised would not fit.
    #[error(
        "host CPU {cpu} cannot be given up: the other host CPUs have room for reservations of {}.{} % of a CPU, and \
         {}.{} % is reserved{}",
        fits_permille / 10, fits_permille % 10, reserved_permille / 10, reserved_permille % 10,
        not_fitting(vcpus, *free_in_ms)
    )]
    NoBandwidth {
        /// The host CPU.
        cpu: usize,
        /// The vCPUs whose reservations would not fit.
        vcpus: Option<String>,
        /// What is reserved, thousandths of a CPU.
        reserved_permille: u64,
        /// What the other host CPUs have room for, thousandths of a CPU.
        fits_permille: u64,
        /// When the last bandwidth is free that was given up lately and still counts, ms from now.
        free_in_ms: Option<u64>,
    },
    /// The pool has stopped.
    #[error("the pool has stopped")]
    Stopped,
}

/// What the refusal names, and what to do.
fn not_fitting(vcpus: &Option<String>, free_in_ms: Option<u64>) -> String {
    match (vcpus, free_in_ms) {
        (Some(vcpus), _) => format!("; reserve less, or end guests first: {vcpus} would not fit"),
        (None, Some(ms)) => {
            format!("; what was given up lately is free in {ms} ms, so try again then")
        }
        (None, None) => "; reserve less, or end guests first".to_owned(),
    }
}

/// The host CPUs of a pool.
#[derive(Clone)]
pub struct PoolCpus {
    pool: Arc<Pool>,
    threads: Arc<ExecutorThreads>,
}

impl std::fmt::Debug for PoolCpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolCpus").finish_non_exhaustive()
    }
}

impl PoolCpus {
    pub(super) fn new(pool: &Arc<Pool>, threads: &Arc<ExecutorThreads>) -> Self {
        Self {
            pool: Arc::clone(pool),
            threads: Arc::clone(threads),
        }
    }

    /// The host CPUs of the pool, ascending.
    #[must_use]
    pub fn list(&self) -> Vec<usize> {
        self.pool.member_cpus()
    }

    /// The pool gets `host_cpu`. When this returns, vCPUs can run there.
    ///
    /// # Errors
    /// If it has it, has no place for it, or the host refuses an executor there.
    pub fn add(&self, host_cpu: usize) -> Result<(), PoolCpuError> {
        let cpu = self
            .place_of(host_cpu)
            .ok_or(PoolCpuError::NoPlace(host_cpu))?;
        let mut threads = self.threads.change();
        if self.members().contains(cpu) {
            return Err(PoolCpuError::Taken(host_cpu));
        }
        // First, so that what the policy promises there can run. Until then the executor finds nothing to run.
        threads
            .start(cpu, host_cpu)
            .map_err(|source| PoolCpuError::Executor {
                cpu: host_cpu,
                source,
            })?;
        let added = self
            .pool
            .change(|state, now| !state.is_stopping() && state.sched.add_cpu(cpu, now));
        if !added {
            threads.end(&self.pool, cpu);
            return Err(PoolCpuError::Stopped);
        }
        self.pool.usable_cpus.set_member(host_cpu, true);
        Ok(())
    }

    /// The pool gives `host_cpu` up. When this returns, no executor runs there.
    ///
    /// # Errors
    /// If it does not have it, or what is promised would not fit on the others.
    pub fn remove(&self, host_cpu: usize) -> Result<(), PoolCpuError> {
        let not_there = || PoolCpuError::NotThere(host_cpu, self.list());
        let cpu = self.place_of(host_cpu).ok_or_else(not_there)?;
        let mut threads = self.threads.change();
        let removed = self.pool.change(|state, now| {
            if state.is_stopping() {
                return Err(PoolCpuError::Stopped);
            }
            let removed = state.sched.remove_cpu(cpu, now);
            removed.map_err(|error| refusal(state, host_cpu, error, now))
        });
        match removed {
            // Its message has the others, for which the lock is needed again.
            Err(PoolCpuError::NotThere(..)) => return Err(not_there()),
            result => result?,
        }
        self.pool.usable_cpus.set_member(host_cpu, false);
        threads.end(&self.pool, cpu);
        Ok(())
    }

    fn members(&self) -> CpuSet {
        self.pool.members()
    }

    fn place_of(&self, host_cpu: usize) -> Option<CpuId> {
        let number = self
            .pool
            .host_cpus()
            .iter()
            .position(|&cpu| cpu == host_cpu)?;
        Some(CpuId(number as u32))
    }
}

/// Why `host_cpu` cannot be given up, for the user.
fn refusal(state: &PoolState, host_cpu: usize, error: CpuRemovalError, now: u64) -> PoolCpuError {
    let cpu = host_cpu;
    match error {
        CpuRemovalError::NotThere(_) => PoolCpuError::NotThere(cpu, Vec::new()),
        CpuRemovalError::Last => PoolCpuError::Last(cpu),
        CpuRemovalError::Pinned(vcpus) => PoolCpuError::Pinned {
            cpu,
            vcpus: named(state, &vcpus).unwrap_or_else(|| "a vCPU".to_owned()),
        },
        CpuRemovalError::NoBandwidth {
            vcpus,
            promised_permille,
            fits_permille,
            held_until,
            ..
        } => PoolCpuError::NoBandwidth {
            cpu,
            vcpus: named(state, &vcpus),
            reserved_permille: promised_permille,
            fits_permille,
            free_in_ms: held_until.map(|at| at.saturating_sub(now).div_ceil(1_000_000)),
        },
    }
}

/// These vCPUs as the user names them; `None`: there are none.
fn named(state: &PoolState, vcpus: &[VcpuId]) -> Option<String> {
    let names = state.names();
    let names = vcpus.iter().filter_map(|&vcpu| {
        let name = names.name(vcpu)?;
        Some(format!("{}/{}", name.guest_name, name.index))
    });
    let mut names: Vec<String> = names.collect();
    if names.len() > MOST_NAMES {
        let more = names.len() - MOST_NAMES;
        names.truncate(MOST_NAMES);
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// How many vCPUs a refusal names.
const MOST_NAMES: usize = 8;
