//! The operations: for each, the guest that does little else, and how its figures are read from the run.

use std::time::Duration;

use baton_abi::testdev::{RESULT_ACQUISITIONS, RESULT_WAIT_SUM_NS};
use baton_config::{GuestConfig, LateHalts, Reservation, RunConfig};
use baton_run::summary::{RunSummary, VcpuSummary};
use serde::Serialize;

use super::form::Form;

/// Period of the timer that wakes halted vCPUs, nanoseconds.
const PERIOD_NS: u64 = 1_000_000;
/// The slice of all runs, and the shorter of the two slices whose runs are compared to find the cost of a
/// preemption.
pub(super) const SHORT_SLICE: Duration = Duration::from_micros(500);

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A port write that exits to user space, a decision, and the entry into the guest.
    Doorbell,
    /// A vCPU wakes another and goes idle: from one to the other on one host CPU.
    Switch,
    /// The same where each vCPU has a host CPU of its own: a kick.
    Kick,
    /// A vCPU is woken on another host CPU than the one where it ran last: the time until it runs.
    Migration,
    /// The timer of a halted vCPU is due: the time until the vCPU runs.
    HaltWake,
    /// The slice of a vCPU is over: the time until the next vCPU runs.
    Preemption,
    /// A waiter rings its doorbell: the time until the holder has run on the waiter's budget and released the
    /// lock, and the waiter holds it.
    Proxy,
}

/// The figures that one run gives for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Nanoseconds per operation.
    pub(super) ns: u64,
    /// Number of operations.
    pub(super) count: u64,
}

impl Sample {
    /// `count` operations that took `total` nanoseconds together; `None` if there were none.
    pub(super) fn of(total: u64, count: u64) -> Option<Self> {
        let ns = total.checked_div(count)?;
        Some(Self { ns, count })
    }
}

impl Operation {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 7] = [
        Self::Doorbell,
        Self::Switch,
        Self::Kick,
        Self::Migration,
        Self::HaltWake,
        Self::Preemption,
        Self::Proxy,
    ];

    /// What is measured, for the table.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Doorbell => "doorbell: exit, decision, entry (CPU time)",
            Self::Switch => "switch: wake a sibling, go idle, same host CPU",
            Self::Kick => "kick: wake a sibling, go idle, another host CPU",
            Self::Migration => "migration: wake one that last ran elsewhere",
            Self::HaltWake => "halt: timer due to guest running",
            Self::Preemption => "preemption: one vCPU off, the next on",
            Self::Proxy => "proxy: ring, holder runs, release, waiter runs",
        }
    }

    /// The reason why it cannot be measured on a pool of `cpus` host CPUs; `None` if it can.
    pub(super) fn refusal(self, cpus: usize) -> Option<String> {
        (self == Self::Migration && cpus < 2).then(|| {
            "a vCPU that moves needs two host CPUs, and the pool has one: name two with --host-cpus"
                .to_owned()
        })
    }

    /// Whether the same operation can be measured in runs with a thread for each vCPU.
    pub(super) const fn has_host(self) -> bool {
        match self {
            // Only Baton sets slices, and only its policy decides where a vCPU runs next.
            Self::Preemption | Self::Migration => false,
            Self::Doorbell | Self::Switch | Self::Kick | Self::HaltWake | Self::Proxy => true,
        }
    }

    /// A run in `form` for `time`, of a guest that does little but this operation.
    pub(super) fn config(self, form: Form, cpus: &[usize], time: Duration) -> RunConfig {
        let seconds = time.as_secs_f64();
        let count = (time.as_nanos() as u64 / PERIOD_NS).max(1);
        let (vcpus, text) = match self {
            Self::Doorbell => (1, format!("workload=doorbell-storm seconds={seconds}")),
            Self::Switch | Self::Kick => (2, format!("workload=pingpong seconds={seconds}")),
            Self::Migration => (3, format!("workload=roam seconds={seconds}")),
            Self::HaltWake => (1, format!("workload=halt count={count} period=1ms")),
            Self::Preemption => (2, format!("workload=hog seconds={seconds}")),
            Self::Proxy => (2, format!("workload=carry seconds={seconds}")),
        };
        let mut config = run_of(vcpus, &text, form);
        let several = matches!(self, Self::Kick | Self::Migration) && cpus.len() > 1;
        config.host_cpus = cpus[..if several { 2 } else { 1 }].to_vec();
        match self {
            Self::Kick if several => pin(&mut config, &[Some(0), Some(1)]),
            Self::Migration => pin(&mut config, &[Some(0), Some(1), None]),
            _ => {}
        }
        if self == Self::Proxy {
            // The waiter has a reservation, so it is picked before the holder whenever it can run. Deferral is
            // off, for a deferred holder would release the lock before the waiter's budget carried it. The
            // host's scheduler has no reservations.
            config.guests[0].reservations[1] = form.is_baton().then_some(WAITER);
            config.defer = None;
        }
        config
    }

    /// The same run without the measured operation, for operations that have one: for a migration, the vCPU
    /// is woken by the same two others and stays on its host CPU.
    pub(super) fn without(self, cpus: &[usize], time: Duration) -> Option<RunConfig> {
        (self == Self::Migration).then(|| {
            let mut config = self.config(Form::Default, cpus, time);
            pin(&mut config, &[Some(0), Some(0), Some(1)]);
            config
        })
    }

    /// The figures of a run; `None` if the operation did not occur in it.
    pub(super) fn sample(self, summary: &RunSummary) -> Option<Sample> {
        let guest = &summary.guests[0];
        let sum = |f: fn(&VcpuSummary) -> u64| guest.vcpus.iter().map(f).sum::<u64>();
        let (elapsed, rounds) = (guest.workload.elapsed_ns, guest.workload.iterations);
        // Only the vCPUs whose waits are the measured operation report waits.
        let result = |key| -> u64 {
            let each = guest.vcpus.iter().filter_map(|v| v.results.get(&key));
            each.sum()
        };
        let waits = || Sample::of(result(RESULT_WAIT_SUM_NS), result(RESULT_ACQUISITIONS));
        match self {
            Self::Doorbell => Sample::of(
                sum(|v| v.account.counters.runtime_ns),
                sum(|v| v.account.exits.doorbells + v.account.exits.nonsense),
            ),
            // A round trip is two operations.
            Self::Switch | Self::Kick => Sample::of(elapsed, 2 * rounds),
            Self::Migration => waits().map(|each| Sample {
                count: guest.vcpus[2].account.counters.migrations,
                ..each
            }),
            Self::HaltWake => Sample::of(elapsed, rounds).map(|each| Sample {
                ns: each.ns.saturating_sub(PERIOD_NS),
                ..each
            }),
            Self::Preemption => None,
            Self::Proxy => waits().map(|each| Sample {
                count: guest.vcpus[0].account.counters.proxied,
                ..each
            }),
        }
    }
}

/// The reservation of the waiter: soft, so that it is never throttled, and with a period so short that its
/// deadline is always the earliest.
const WAITER: Reservation = match Reservation::soft(5_000_000, 10_000_000) {
    Ok(reservation) => reservation,
    Err(_) => panic!("it is within the bounds"),
};

/// A run of one guest with the workload `text`.
fn run_of(vcpus: usize, text: &str, form: Form) -> RunConfig {
    let mut guest = GuestConfig::new("guest").with_cpus(vcpus);
    guest.cmdline = format!("{text} hints=on");
    let mut config = RunConfig {
        guests: vec![guest],
        slice: SHORT_SLICE,
        late_halts: LateHalts::Allow,
        quiet: true,
        ..RunConfig::default()
    };
    form.apply(&mut config);
    config
}

/// Pins each vCPU to the host CPU at this index of the pool; `None` leaves a vCPU free.
fn pin(config: &mut RunConfig, indices: &[Option<usize>]) {
    let at = |index: &Option<usize>| index.map(|index| vec![config.host_cpus[index]]);
    config.guests[0].host_cpus = indices.iter().map(at).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_migration_is_refused_and_only_on_one_cpu() {
        for operation in Operation::ALL {
            let refused = operation.refusal(1).is_some();
            assert_eq!(refused, operation == Operation::Migration);
            assert_eq!(operation.refusal(2), None);
        }
    }

    #[test]
    fn all_guests_can_be_configured() {
        let time = Duration::from_millis(100);
        for operation in Operation::ALL {
            for form in [Form::Default, Form::Threads, Form::Pool, Form::Host] {
                let config = operation.config(form, &[2, 5, 6], time);
                if form.is_baton() || operation.has_host() {
                    assert_eq!(config.validate(), Ok(()), "{operation:?} {form:?}");
                }
            }
            if let Some(without) = operation.without(&[2, 5, 6], time) {
                assert_eq!(without.validate(), Ok(()), "{operation:?}");
                let stays = |cpu| Some(vec![cpu]);
                let guest = &without.guests[0];
                assert_eq!(guest.host_cpus, [2, 2, 5].map(stays));
            }
        }
    }
}
