//! One cell of the matrix, and the run that measures it.

use std::time::Duration;

use baton_config::{GuestConfig, RunConfig};
use serde::Serialize;

use super::axes::{Load, Lock, Policy, name, serialize_name};

/// The largest number of vCPUs that the built-in guest supports.
pub const MAX_GUEST_VCPUS: usize = 64;
/// Work under the lock, nanoseconds.
pub const HOLD_NS: u64 = 2_000;
/// Work between two acquisitions, nanoseconds.
pub const OUTSIDE_NS: u64 = 2_000;
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
    /// The reference of all cells with this lock: no overcommit, under the host kernel.
    #[must_use]
    pub fn reference_of(lock: Lock) -> Self {
        Self {
            lock,
            load: Load::X1,
            policy: Policy::HostSpin,
        }
    }

    /// The run of this cell, in which vCPUs contend for `time`, on `host_cpus`.
    ///
    /// # Errors
    /// The reason, as a sentence, why the pool is too large or the policy does not support the load.
    pub fn config(&self, host_cpus: &[usize], time: Duration) -> Result<RunConfig, String> {
        let mut guests = self.lock_guests(host_cpus.len(), time)?;
        guests.extend(self.hog(host_cpus.len(), time));
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

    /// The guests whose vCPUs contend for a lock.
    fn lock_guests(&self, cpus: usize, time: Duration) -> Result<Vec<GuestConfig>, String> {
        let reservation = self.load.reservation();
        if reservation.is_some() && !self.policy.keeps_reservations() {
            return Err("the host kernel's default policy has no reservations".to_owned());
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
                self.policy.guest_words(),
                seconds(time)
            );
            guests.push(guest);
        }
        Ok(guests)
    }

    /// The guest that only computes, if the load has one.
    fn hog(&self, cpus: usize, time: Duration) -> Option<GuestConfig> {
        let vcpus = self.load.hog_vcpus(cpus);
        (vcpus > 0).then(|| {
            let mut guest = GuestConfig::new("hog").with_cpus(vcpus);
            guest.cmdline = format!("workload=hog seconds={}", seconds(hog_time(time)));
            guest
        })
    }
}

/// The longest duration of a run in which vCPUs contend for `time`. A strict ticket lock under the host
/// kernel needs many times as long for its last acquisitions; a guest that takes even longer never ends.
#[must_use]
pub fn longest(time: Duration) -> Duration {
    time.saturating_mul(10)
        .saturating_add(Duration::from_secs(30))
}

/// Time for which the hog computes: longer than its neighbour, which would otherwise have the pool for
/// itself at the end.
fn hog_time(time: Duration) -> Duration {
    time.saturating_add(time / 10)
        .saturating_add(Duration::from_millis(100))
}

/// Seconds with all digits, in the form of the guest's command line.
fn seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lhp::axes::HARD_BUDGET;
    use baton_config::{HintSource, SchedMode};
    use clap::ValueEnum;

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
    fn hard_budgets_are_measured_only_under_policies_that_keep_them() {
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
            "the default policy would give each vCPU all the time there is"
        );
    }

    #[test]
    fn guest_has_its_lock_and_time_on_its_command_line() {
        let guests = config(Load::Hog, Policy::HostPv).guests;
        assert_eq!(
            guests[0].cmdline,
            "workload=lock lock=mcs hints=off wait=halt hold=2000ns outside=2000ns \
             seconds=1.500000000"
        );
        assert_eq!(guests[1].cmdline, "workload=hog seconds=1.750000000");
    }

    #[test]
    fn policies_differ_in_the_scheduler_and_its_options() {
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
        assert_eq!(of(Policy::BatonInferred), of(Policy::Baton));
        assert_eq!(of(Policy::BatonInferredAny), of(Policy::Baton));
        assert_eq!(of(Policy::BatonDefer), (SchedMode::Baton, false, true));
        assert_eq!(of(Policy::BatonProxy), (SchedMode::Baton, true, false));
        assert_eq!(of(Policy::Baton), (SchedMode::Baton, true, true));
        for same in [Policy::BatonTraced, Policy::BatonThreads, Policy::BatonPool] {
            assert_eq!(of(same), of(Policy::Baton));
        }
        assert!(config(Load::X2, Policy::Baton).trace.is_none());
        assert!(config(Load::X2, Policy::BatonTraced).trace.is_some());
    }

    /// A guest that publishes hints where none are read, or the other way round, would be another policy.
    #[test]
    fn every_policy_names_the_source_of_hints_that_its_guests_serve() {
        for &policy in Policy::value_variants() {
            let config = config(Load::Hog, policy);
            let words = &config.guests[0].cmdline;
            let source = match policy {
                Policy::BatonInferred => HintSource::Inferred,
                Policy::BatonInferredAny => HintSource::InferredAny,
                _ if words.contains("hints=on") => HintSource::Page,
                _ => HintSource::Off,
            };
            assert!(config.guests.iter().all(|guest| guest.hints == source));
            let is_inferred = matches!(policy, Policy::BatonInferred | Policy::BatonInferredAny);
            assert_eq!(is_inferred, words.contains("hints=stock"));
        }
    }

    #[test]
    fn inferred_hints_are_compared_with_none_by_the_same_waiters() {
        let words = |policy: Policy| {
            let words = policy.guest_words();
            words.split_once(' ').map(|(_, waiters)| waiters)
        };
        assert_eq!(words(Policy::BatonInferred), words(Policy::BatonNoHints));
        assert_eq!(words(Policy::BatonInferredAny), words(Policy::BatonNoHints));
    }

    #[test]
    fn pool_too_big_for_the_guest_is_refused_with_the_reason() {
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
}
