//! How the host's kernel is to schedule each vCPU's thread.

use baton_config::units::format_cpus;
use baton_config::{Reservation, RunConfig, SchedMode};
use baton_machine::Vcpu;
use baton_os::sys;

use super::deadline;
use super::error::HostSchedError;
use crate::ready_guest::ReadyGuest;

/// How the kernel is to schedule one thread.
#[derive(Clone, Debug)]
pub(super) enum Placement {
    /// On these host CPUs, by the kernel's default policy.
    Pinned(Vec<usize>),
    /// On all host CPUs, by `SCHED_DEADLINE`.
    Deadline(Reservation),
}

impl Placement {
    /// The placements of all vCPUs of each guest, on the host CPUs `pool`.
    ///
    /// # Errors
    /// If `SCHED_DEADLINE` is configured and some thread may not use all host CPUs.
    pub(super) fn of_all(
        config: &RunConfig,
        pool: &[usize],
        guests: &[ReadyGuest],
    ) -> Result<Vec<Vec<Self>>, HostSchedError> {
        match config.sched {
            SchedMode::HostDeadline => {
                let reservations = deadline::reservations(pool, guests)?.into_iter();
                let placements = reservations.map(|r| r.into_iter().map(Self::Deadline).collect());
                Ok(placements.collect())
            }
            SchedMode::Host | SchedMode::Baton | SchedMode::RoundRobin => Ok(pinned(pool, guests)),
        }
    }

    /// Places the calling thread, which is to run `vcpu`.
    pub(super) fn apply(&self, vcpu: &Vcpu) -> Result<(), HostSchedError> {
        match self {
            Self::Pinned(cpus) => {
                sys::set_affinity(cpus).map_err(|source| HostSchedError::Affinity {
                    cpus: format_cpus(cpus),
                    source,
                })
            }
            Self::Deadline(reservation) => deadline::apply(vcpu, *reservation),
        }
    }
}

fn pinned(pool: &[usize], guests: &[ReadyGuest]) -> Vec<Vec<Placement>> {
    guests
        .iter()
        .map(|ready| {
            ready
                .config
                .host_cpus
                .iter()
                .map(|own| Placement::Pinned(own.clone().unwrap_or_else(|| pool.to_vec())))
                .collect()
        })
        .collect()
}
