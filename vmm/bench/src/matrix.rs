//! The axes of the lock-holder preemption benchmark, and the run that stands behind each cell.

use std::time::Duration;

use baton_config::{DEFAULT_DEFER, GuestConfig, Reservation, RunConfig, SchedMode};
use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// Most vCPUs that the built-in guest can have.
pub const MAX_GUEST_VCPUS: usize = 64;
/// Work under the lock, nanoseconds.
pub const HOLD_NS: u64 = 2_000;
/// Work between two acquisitions, nanoseconds.
pub const OUTSIDE_NS: u64 = 2_000;
/// What each vCPU of [`Load::Hard`] may use: together 80 % of the pool.
pub const HARD_BUDGET: Reservation = match Reservation::hard(4_000_000, 10_000_000) {
    Ok(reservation) => reservation,
    Err(_) => panic!("it is within the bounds"),
};

/// A lock of the built-in guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lock {
    /// Test-and-set.
    Tas,
    /// A strict ticket lock.
    Ticket,
    /// A queue lock.
    Mcs,
    /// A mutex, whose waiters sleep.
    Mutex,
}

/// What the pool of m host CPUs has to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// One guest of m vCPUs: no overcommit.
    #[value(name = "1x")]
    X1,
    /// One guest of 2m vCPUs.
    #[value(name = "2x")]
    X2,
    /// One guest of 4m vCPUs.
    #[value(name = "4x")]
    X4,
    /// One guest of 8m vCPUs.
    #[value(name = "8x")]
    X8,
    /// Two guests of m vCPUs, each with a lock of its own.
    #[value(name = "two-guests")]
    TwoGuests,
    /// One guest of m vCPUs with the lock beside one of m vCPUs that only compute.
    #[value(name = "hog")]
    Hog,
    /// One guest of 2m vCPUs, each with a hard reservation of 4 ms in 10 ms.
    #[value(name = "hard")]
    Hard,
}

/// Who schedules, and what it knows about locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The host kernel; waiters spin.
    #[value(name = "host-spin")]
    HostSpin,
    /// The host kernel; waiters spin for a while, then halt, as stock Linux guests do.
    #[value(name = "host-pv")]
    HostPv,
    /// The host kernel's SCHED_DEADLINE; waiters spin.
    #[value(name = "host-deadline")]
    HostDeadline,
    /// Baton, told nothing about locks.
    #[value(name = "baton-nohints")]
    BatonNoHints,
    /// Baton, which puts off the preemption of holders.
    #[value(name = "baton-defer")]
    BatonDefer,
    /// Baton, which runs preempted holders on their waiters' budgets.
    #[value(name = "baton-proxy")]
    BatonProxy,
    /// Baton with both.
    #[value(name = "baton")]
    Baton,
    /// The same with a trace of every decision to /dev/null; measured only when named.
    #[value(name = "baton-traced")]
    BatonTraced,
}

/// The name of a value of an axis, as on the command line and in all outputs.
#[must_use]
pub fn name<T: ValueEnum>(value: &T) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// For `serialize_with`: an axis value as its [`name`].
///
/// # Errors
/// The serializer's.
pub fn serialize_name<T: ValueEnum, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&name(value))
}

impl Policy {
    /// Those that are measured unless others are named: all that differ in what they decide.
    pub(super) const DECIDING: [Self; 7] = [
        Self::HostSpin,
        Self::HostPv,
        Self::HostDeadline,
        Self::BatonNoHints,
        Self::BatonDefer,
        Self::BatonProxy,
        Self::Baton,
    ];

    /// Whether this is a baseline: the host kernel schedules.
    #[must_use]
    pub fn is_host(self) -> bool {
        matches!(self, Self::HostSpin | Self::HostPv | Self::HostDeadline)
    }

    fn keeps_reservations(self) -> bool {
        !matches!(self, Self::HostSpin | Self::HostPv)
    }

    pub(super) fn apply(self, config: &mut RunConfig) {
        config.sched = match self {
            Self::HostSpin | Self::HostPv => SchedMode::Host,
            Self::HostDeadline => SchedMode::HostDeadline,
            _ => SchedMode::Baton,
        };
        let both = matches!(self, Self::Baton | Self::BatonTraced);
        config.proxy = both || self == Self::BatonProxy;
        config.defer = (both || self == Self::BatonDefer).then_some(DEFAULT_DEFER);
        // What it costs to record and to write, without a disk that others may use.
        config.trace = (self == Self::BatonTraced).then(|| "/dev/null".into());
    }

    /// The part of the guest's command line that belongs to it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::HostSpin | Self::HostDeadline | Self::BatonNoHints => "hints=off wait=spin",
            Self::HostPv => "hints=off wait=halt",
            Self::BatonDefer | Self::BatonProxy | Self::Baton | Self::BatonTraced => {
                "hints=on wait=spin"
            }
        }
    }
}

impl Load {
    /// vCPUs of each guest with a lock, on a pool of `cpus` host CPUs.
    #[must_use]
    pub fn lock_guests(self, cpus: usize) -> Vec<usize> {
        match self {
            Self::X1 | Self::Hog => vec![cpus],
            Self::X2 | Self::Hard => vec![2 * cpus],
            Self::X4 => vec![4 * cpus],
            Self::X8 => vec![8 * cpus],
            Self::TwoGuests => vec![cpus; 2],
        }
    }

    /// What each vCPU with the lock may use.
    fn reservation(self) -> Option<Reservation> {
        (self == Self::Hard).then_some(HARD_BUDGET)
    }

    /// vCPUs that only compute.
    #[must_use]
    pub fn hog_vcpus(self, cpus: usize) -> usize {
        if self == Self::Hog { cpus } else { 0 }
    }
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The lock.
    #[serde(serialize_with = "serialize_name")]
    pub lock: Lock,
    /// The load.
    #[serde(serialize_with = "serialize_name")]
    pub load: Load,
    /// The policy.
    #[serde(serialize_with = "serialize_name")]
    pub policy: Policy,
}

impl Cell {
    /// The cell that is the reference of all others with this lock: no overcommit, nobody in between.
    #[must_use]
    pub fn limit_of(lock: Lock) -> Self {
        Self {
            lock,
            load: Load::X1,
            policy: Policy::HostSpin,
        }
    }

    /// The run of this cell, in which vCPUs contend for `time`, on `host_cpus`.
    ///
    /// # Errors
    /// Why the pool is too big for it, or why its policy cannot have it, as a sentence.
    pub fn config(&self, host_cpus: &[usize], time: Duration) -> Result<RunConfig, String> {
        let cpus = host_cpus.len();
        let reservation = self.load.reservation();
        if reservation.is_some() && !self.policy.keeps_reservations() {
            return Err("the host kernel's default policy knows no reservations".to_owned());
        }
        let mut guests = Vec::new();
        for (number, vcpus) in self.load.lock_guests(cpus).into_iter().enumerate() {
            if vcpus > MAX_GUEST_VCPUS {
                return Err(format!(
                    "needs a guest of {vcpus} vCPUs, the built-in one has at most \
                     {MAX_GUEST_VCPUS}: give fewer --host-cpus"
                ));
            }
            let mut guest = GuestConfig::new(&format!("lock{number}")).with_cpus(vcpus);
            guest.reservations.fill(reservation);
            guest.cmdline = format!(
                "workload=lock lock={} {} hold={HOLD_NS}ns outside={OUTSIDE_NS}ns seconds={}",
                name(&self.lock),
                self.policy.words(),
                seconds(time)
            );
            guests.push(guest);
        }
        let hogs = self.load.hog_vcpus(cpus);
        if hogs > 0 {
            let mut guest = GuestConfig::new("hog").with_cpus(hogs);
            guest.cmdline = format!("workload=hog seconds={}", seconds(hog_time(time)));
            guests.push(guest);
        }
        let mut config = RunConfig {
            guests,
            host_cpus: host_cpus.to_vec(),
            duration: Some(longest(time)),
            quiet: true,
            ..RunConfig::default()
        };
        self.policy.apply(&mut config);
        Ok(config)
    }
}

/// How long a run of `time` may take in all. A strict ticket lock under the host kernel needs many
/// times as long for its last acquisitions; a guest that is not done by then never will be.
#[must_use]
pub fn longest(time: Duration) -> Duration {
    time.saturating_mul(10)
        .saturating_add(Duration::from_secs(30))
}

/// The hog outlasts the last acquisitions of its neighbour, which would otherwise have a part of
/// its time without company.
fn hog_time(time: Duration) -> Duration {
    time.saturating_add(time / 10)
        .saturating_add(Duration::from_millis(100))
}

/// Seconds with all digits, as the guest's command line takes them.
fn seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The locks.
    pub locks: Vec<Lock>,
    /// The loads.
    pub loads: Vec<Load>,
    /// The policies.
    pub policies: Vec<Policy>,
}

impl Matrix {
    /// All cells, those that are compared with each other side by side.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &load in &self.loads {
            for &lock in &self.locks {
                let cell = |&policy| Cell { lock, load, policy };
                cells.extend(self.policies.iter().map(cell));
            }
        }
        cells
    }

    /// The references that are not cells anyway.
    #[must_use]
    pub fn extra_limits(&self) -> Vec<Cell> {
        let cells = self.cells();
        let limits = self.locks.iter().copied().map(Cell::limit_of);
        limits.filter(|limit| !cells.contains(limit)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(load: Load, policy: Policy) -> RunConfig {
        let cell = Cell {
            lock: Lock::Mcs,
            load,
            policy,
        };
        let config = cell
            .config(&[0, 1], Duration::from_millis(1500))
            .expect("fits");
        config.validate().expect("runs");
        config
    }

    #[test]
    fn names_are_those_of_the_schema() {
        let names = |values: Vec<String>| values.join(" ");
        assert_eq!(
            names(Lock::value_variants().iter().map(name).collect()),
            "tas ticket mcs mutex"
        );
        assert_eq!(
            names(Load::value_variants().iter().map(name).collect()),
            "1x 2x 4x 8x two-guests hog hard"
        );
        assert_eq!(
            names(Policy::value_variants().iter().map(name).collect()),
            "host-spin host-pv host-deadline baton-nohints baton-defer baton-proxy baton \
             baton-traced"
        );
    }

    #[test]
    fn loads_are_multiples_of_the_pool() {
        let vcpus = |load| -> Vec<usize> {
            let guests = config(load, Policy::Baton).guests;
            guests.iter().map(|guest| guest.cpus).collect()
        };
        assert_eq!(vcpus(Load::X1), [2]);
        assert_eq!(vcpus(Load::X8), [16]);
        assert_eq!(vcpus(Load::TwoGuests), [2, 2]);
        assert_eq!(vcpus(Load::Hog), [2, 2]);
    }

    #[test]
    fn equal_hard_budgets_are_measured_by_who_keeps_them() {
        let guests = config(Load::Hard, Policy::Baton).guests;
        assert_eq!(guests[0].reservations.len(), 4);
        assert!(
            guests[0]
                .reservations
                .iter()
                .all(|r| *r == Some(HARD_BUDGET))
        );
        config(Load::Hard, Policy::HostDeadline);
        let cell = Cell {
            lock: Lock::Mcs,
            load: Load::Hard,
            policy: Policy::HostPv,
        };
        let reason = cell.config(&[0, 1], Duration::from_secs(1));
        assert!(
            reason.is_err(),
            "the default policy would give it all it wants"
        );
    }

    #[test]
    fn guest_is_told_its_lock_and_time() {
        let guests = config(Load::Hog, Policy::HostPv).guests;
        assert_eq!(
            guests[0].cmdline,
            "workload=lock lock=mcs hints=off wait=halt hold=2000ns outside=2000ns \
             seconds=1.500000000"
        );
        assert_eq!(guests[1].cmdline, "workload=hog seconds=1.750000000");
    }

    #[test]
    fn policies_differ_in_who_schedules_and_what_it_may_do() {
        let of = |policy| {
            let config = config(Load::X2, policy);
            (config.sched, config.proxy, config.defer.is_some())
        };
        assert_eq!(of(Policy::HostSpin), (SchedMode::Host, false, false));
        assert_eq!(
            of(Policy::HostDeadline),
            (SchedMode::HostDeadline, false, false)
        );
        assert_eq!(of(Policy::BatonNoHints), (SchedMode::Baton, false, false));
        assert_eq!(of(Policy::BatonDefer), (SchedMode::Baton, false, true));
        assert_eq!(of(Policy::BatonProxy), (SchedMode::Baton, true, false));
        assert_eq!(of(Policy::Baton), (SchedMode::Baton, true, true));
        assert_eq!(of(Policy::BatonTraced), of(Policy::Baton));
        assert!(config(Load::X2, Policy::Baton).trace.is_none());
        assert!(config(Load::X2, Policy::BatonTraced).trace.is_some());
    }

    #[test]
    fn pool_too_big_for_the_guest_is_said() {
        let cell = Cell {
            lock: Lock::Tas,
            load: Load::X8,
            policy: Policy::Baton,
        };
        let pool: Vec<usize> = (0..16).collect();
        let reason = cell
            .config(&pool, Duration::from_secs(1))
            .expect_err("too big");
        assert!(reason.contains("128 vCPUs"), "{reason}");
    }

    #[test]
    fn limits_are_measured_whatever_is_asked_for() {
        let mut matrix = Matrix {
            locks: vec![Lock::Tas, Lock::Mcs],
            loads: vec![Load::X4],
            policies: vec![Policy::HostSpin, Policy::Baton],
        };
        assert_eq!(matrix.cells().len(), 4);
        assert_eq!(
            matrix.extra_limits(),
            [Cell::limit_of(Lock::Tas), Cell::limit_of(Lock::Mcs)]
        );
        matrix.loads.push(Load::X1);
        assert_eq!(matrix.extra_limits(), []);
    }
}
