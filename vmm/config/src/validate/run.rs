//! The checks of a run.

use std::time::Duration;

use super::{devices, guest, names, sched_mode};
use crate::error::{ConfigError, fail};
use crate::run::RunConfig;
use crate::units::format_cpus;

const MIN_SLICE: Duration = Duration::from_micros(100);
const MAX_SLICE: Duration = Duration::from_secs(1);
const MAX_DEFER: Duration = Duration::from_millis(10);

impl RunConfig {
    /// Checks what flags and files cannot rule out one by one.
    ///
    /// # Errors
    /// The first thing that cannot run, with the range that would.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_for_any_scheduler()?;
        sched_mode::check(self)
    }

    /// [`RunConfig::validate`] for a pool, whose guests join later.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn validate_pool(&self) -> Result<(), ConfigError> {
        self.check_times()?;
        sched_mode::check(self)
    }

    /// [`RunConfig::validate`] without the checks that depend on the scheduler, which flags may still
    /// change.
    pub(crate) fn validate_for_any_scheduler(&self) -> Result<(), ConfigError> {
        if self.guests.is_empty() {
            return fail("there is no guest to run: give --cpus and --kernel, or a TOML file");
        }
        names::check_all(&self.guests)?;
        self.check_times()?;
        self.check_until_guest()?;
        if self.isolate && self.share_cpus {
            return fail(
                "host CPUs that are isolated cannot be shared, because their other owner would lose them: leave \
                 --isolate or --share-cpus out",
            );
        }
        self.guests.iter().try_for_each(guest::check)?;
        if !self.host_cpus.is_empty() {
            self.pinned_within(&self.host_cpus)?;
        }
        devices::check_consoles(&self.guests)?;
        devices::check_sockets(&self.guests)
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        if self.slice < MIN_SLICE || self.slice > MAX_SLICE {
            return fail("the slice must be between 100us and 1s");
        }
        if self.defer.is_some_and(|defer| defer > MAX_DEFER) {
            return fail("defer must be at most 10ms, or off");
        }
        Ok(())
    }

    fn check_until_guest(&self) -> Result<(), ConfigError> {
        match &self.until_guest {
            Some(name) if self.awaited().next().is_none() => fail(format!(
                "there is no guest '{}' to wait for: this run has {}",
                name.escape_debug(),
                names::list(&self.guests)
            )),
            _ => Ok(()),
        }
    }

    /// Checks that the host CPUs to which vCPUs are pinned are in the pool. The kernel would accept the
    /// others, and leave them out.
    ///
    /// # Errors
    /// The first host CPU that is not in `pool`.
    pub fn pinned_within(&self, pool: &[usize]) -> Result<(), ConfigError> {
        for guest in &self.guests {
            let mut pinned = guest.host_cpus.iter().flatten().flatten();
            if let Some(cpu) = pinned.find(|cpu| !pool.contains(cpu)) {
                return fail(format!(
                    "guest {}: host CPU {cpu} is not in the pool ({})",
                    guest.name,
                    format_cpus(pool)
                ));
            }
        }
        Ok(())
    }
}
