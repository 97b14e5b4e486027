//! vCPU threads under the host kernel's `SCHED_DEADLINE`.

use baton_config::Reservation;
use baton_config::units::format_cpus;
use baton_machine::Vcpu;
use baton_os::sys;
use vcpu_sched::MIN_BUDGET;

use super::error::HostSchedError;
use crate::ready_guest::ReadyGuest;

/// Period of the threads of vCPUs without a reservation.
const SHARE_PERIOD_NS: u64 = 10_000_000;
/// The kernel admits up to 95 % of each CPU to real-time threads; this stays a little below.
const USABLE_PER_MILLE: u64 = 900;
/// The smallest share of a vCPU without a reservation; its budget is above the kernel's own limit of 1 us.
const SMALLEST_SHARE: Reservation = match Reservation::hard(MIN_BUDGET, SHARE_PERIOD_NS) {
    Ok(reservation) => reservation,
    Err(_) => panic!("it is within the bounds"),
};

/// A reservation for each vCPU of each guest: its own, or a share, by weight, of what those leave.
///
/// # Errors
/// If some thread may not use all host CPUs.
pub(super) fn reservations(
    pool: &[usize],
    guests: &[ReadyGuest],
) -> Result<Vec<Vec<Reservation>>, HostSchedError> {
    let all = online_cpus();
    let pinned = guests
        .iter()
        .any(|g| g.config.host_cpus.iter().any(Option::is_some));
    if pool != all || pinned {
        return Err(HostSchedError::DeadlinePinned {
            all: format_cpus(&all),
            pool: format_cpus(pool),
        });
    }
    let reserved: u64 = guests
        .iter()
        .flat_map(|g| g.config.reservations.iter().flatten())
        .map(|r| in_share_period(r.budget(), r.period()))
        .fold(0, u64::saturating_add);
    let capacity = pool.len() as u64 * SHARE_PERIOD_NS / 1000 * USABLE_PER_MILLE;
    let weights: u64 = guests
        .iter()
        .map(|g| {
            let sharing = g.config.reservations.iter().filter(|r| r.is_none()).count();
            u64::from(g.config.weight) * sharing as u64
        })
        .sum();
    let left = capacity.saturating_sub(reserved);
    Ok(guests
        .iter()
        .map(|g| {
            let share = left * u64::from(g.config.weight) / weights.max(1);
            g.config
                .reservations
                .iter()
                .map(|own| own.unwrap_or_else(|| share_of(share)))
                .collect()
        })
        .collect())
}

fn in_share_period(budget: u64, period: u64) -> u64 {
    let scaled = u128::from(budget) * u128::from(SHARE_PERIOD_NS) / u128::from(period.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn share_of(budget: u64) -> Reservation {
    let most = SHARE_PERIOD_NS / 1000 * USABLE_PER_MILLE;
    // Within the bounds of a reservation, so none is refused.
    Reservation::hard(budget.clamp(MIN_BUDGET, most), SHARE_PERIOD_NS).unwrap_or(SMALLEST_SHARE)
}

/// All CPUs of the host that are online; those of this process if the kernel does not list them.
fn online_cpus() -> Vec<usize> {
    std::fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|list| baton_config::units::parse_cpus(list.trim()).ok())
        .or_else(|| sys::affinity().ok())
        .unwrap_or_default()
}

/// Puts the calling thread, which is to run `vcpu`, under `reservation`.
pub(super) fn apply(vcpu: &Vcpu, reservation: Reservation) -> Result<(), HostSchedError> {
    sys::set_deadline_policy(
        reservation.budget(),
        reservation.deadline(),
        reservation.period(),
    )
    .map_err(|source| HostSchedError::Deadline {
        guest: vcpu.guest.name.clone(),
        vcpu: vcpu.index,
        reservation,
        advice: match source.raw_os_error() {
            Some(libc::EPERM) => {
                "run as root or with CAP_SYS_NICE, in a cgroup with all CPUs and real-time runtime"
            }
            Some(libc::EBUSY) => {
                "the host has not that much real-time left: reserve less, or stop others"
            }
            Some(libc::EINVAL) => "budgets must be at least 1024ns and periods 100us to 4s",
            _ => "see sched_setattr(2)",
        },
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_what_the_kernel_admits() {
        assert_eq!(share_of(u64::MAX).budget(), 9_000_000);
        assert_eq!(share_of(0), SMALLEST_SHARE);
        assert_eq!(in_share_period(1, 0), SHARE_PERIOD_NS);
        assert_eq!(in_share_period(5_000_000, 10_000_000), 5_000_000);
    }
}
