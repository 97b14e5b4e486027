//! The host CPUs of the pool while it runs, each with its executor and its owner on this host.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_config::ExecutorPriority;
use baton_host::executor::{PoolCpuError, PoolCpus};
use baton_os::cpu_owner::OwnedCpus;
use baton_run::cpu_owner;

use crate::failure::{Failure, FailureKind};
use crate::other_cpus;

/// What happens to host CPUs of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuChange {
    /// The pool gets them.
    Add,
    /// The pool gives them up.
    Remove,
}

/// On which terms a pool owns its host CPUs.
#[derive(Debug)]
pub struct OwnerTerms {
    /// The pool's directory, which others are told.
    pub directory: PathBuf,
    /// Whether they may belong to others, too.
    pub share: bool,
}

/// The host CPUs of a pool and their files, which this process owns.
#[derive(Debug)]
pub struct HostCpus {
    pool: PoolCpus,
    /// `None`: the pool owns no host CPUs, and checks no owners.
    terms: Option<OwnerTerms>,
    owned: Mutex<OwnedCpus>,
    /// Whether vCPUs have a priority, so that the host needs a CPU that is not the pool's.
    leaves_one: bool,
}

impl HostCpus {
    /// Those of `pool`, which belong to this process by `owned`, on these `terms`. vCPUs have `vcpu_priority`.
    #[must_use]
    pub fn new(
        pool: PoolCpus,
        terms: Option<OwnerTerms>,
        owned: OwnedCpus,
        vcpu_priority: ExecutorPriority,
    ) -> Self {
        Self {
            pool,
            terms,
            owned: Mutex::new(owned),
            leaves_one: vcpu_priority != ExecutorPriority::Off,
        }
    }

    /// The host CPUs of the pool, ascending.
    #[must_use]
    pub fn list(&self) -> Vec<usize> {
        self.pool.list()
    }

    fn add(&self, cpu: usize) -> Result<(), Failure> {
        let has = self.list();
        if has.contains(&cpu) {
            return Err(failure(&PoolCpuError::Taken(cpu)));
        }
        if self.leaves_one && other_cpus::others(&[has, vec![cpu]].concat()).is_none() {
            let what =
                "the pool has executor_priority, so the host needs a CPU that is not the pool's";
            return Err(Failure::new(FailureKind::Conflict, what));
        }
        let owned = match &self.terms {
            None => OwnedCpus::default(),
            Some(terms) => cpu_owner::own_for_pool(&terms.directory, &[cpu], terms.share)
                .map_err(|taken| Failure::new(FailureKind::Conflict, taken))?,
        };
        self.pool.add(cpu).map_err(|error| failure(&error))?;
        self.lock().add(owned);
        Ok(())
    }

    fn remove(&self, cpu: usize) -> Result<(), Failure> {
        self.pool.remove(cpu).map_err(|error| failure(&error))?;
        // Nothing of the pool runs there any more, so others may own it.
        self.lock().release(cpu);
        Ok(())
    }

    /// Makes `change` with `cpu`.
    ///
    /// # Errors
    /// If the pool cannot get it, or cannot do without; then all is as before.
    pub(crate) fn change(&self, change: CpuChange, cpu: usize) -> Result<(), Failure> {
        match change {
            CpuChange::Add => self.add(cpu),
            CpuChange::Remove => self.remove(cpu),
        }
    }

    fn lock(&self) -> MutexGuard<'_, OwnedCpus> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(error: &PoolCpuError) -> Failure {
    let kind = match error {
        PoolCpuError::NoPlace(_) | PoolCpuError::NotThere(..) => FailureKind::Senseless,
        PoolCpuError::Stopped => FailureKind::Busy,
        _ => FailureKind::Conflict,
    };
    Failure::new(kind, error)
}
