//! The host CPUs of the pool while it runs: who owns them on this host, and their change.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_api::EventKind;
use baton_config::ExecutorPriority;
use baton_config::units::{format_cpus, parse_cpus};
use baton_host::executor::{PoolCpuError, PoolCpus};
use baton_link::message::PoolMessage;
use baton_os::cpu_owner::OwnedCpus;
use baton_os::peer::Peer;
use baton_run::cpu_owner;

use crate::failure::{Failure, FailureKind};
use crate::grants::Action;
use crate::service::Service;

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
        if self.leaves_one && crate::daemon::others(&[has, vec![cpu]].concat()).is_none() {
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

    fn change(&self, change: CpuChange, cpu: usize) -> Result<(), Failure> {
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

impl Service {
    /// Makes `change` with the host CPUs of the list `cpus`, such as `2-3`: with all, or with none.
    ///
    /// # Errors
    /// If `peer` may not, the list makes no sense, another process owns one of them, or what is promised would not fit
    /// on those that are left.
    pub fn change_host_cpus(
        &self,
        peer: &Peer,
        change: CpuChange,
        cpus: &str,
    ) -> Result<(), Failure> {
        self.grants.check(peer, Action::ChangePool)?;
        let cpus = parse_cpus(cpus);
        let cpus = cpus.map_err(|error| Failure::new(FailureKind::Senseless, error))?;
        self.one_at_a_time(|| self.change_all(change, &cpus))?;
        for &cpu in &cpus {
            self.events.publish(match change {
                CpuChange::Add => EventKind::CpuAdded { cpu },
                CpuChange::Remove => EventKind::CpuRemoved { cpu },
            });
        }
        Ok(())
    }

    fn change_all(&self, change: CpuChange, cpus: &[usize]) -> Result<(), Failure> {
        let back = match change {
            CpuChange::Add => CpuChange::Remove,
            CpuChange::Remove => CpuChange::Add,
        };
        for (done, &cpu) in cpus.iter().enumerate() {
            let Err(failure) = self.host_cpus.change(change, cpu) else {
                continue;
            };
            for &cpu in cpus[..done].iter().rev() {
                if let Err(error) = self.host_cpus.change(back, cpu) {
                    // A guest has joined in between and needs what was added, or the host has taken what was removed.
                    let now = format_cpus(&self.host_cpus.list());
                    let what = format!(
                        "{}; host CPU {cpu} could not be changed back ({}), so the pool has {now}",
                        failure.error.error, error.error.error
                    );
                    return Err(Failure::new(failure.kind, what));
                }
            }
            return Err(failure);
        }
        let with_priority = self.handle.cpus_with_priority();
        if !with_priority.is_empty() {
            let message = PoolMessage::Priority(with_priority);
            self.processes.send_all(&message);
        }
        Ok(())
    }
}
