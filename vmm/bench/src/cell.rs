//! One run of one cell: what was measured in it, or why nothing was.

use std::thread;
use std::time::Duration;

use baton_abi::testdev::{RESULT_ACQUISITIONS, RESULT_ELAPSED_NS, RESULT_WAIT_SUM_NS};
use baton_config::RunConfig;
use baton_host::host_sched::HostSchedError;
use baton_os::signals::StopSignals;
use baton_run::RunError;
use baton_run::summary::{GuestSummary, RunSummary, VcpuSummary};
use baton_run::waits::Waits;
use guest_tests::GUEST_ELF;

use super::disturbance::{LIMIT_PER_MILLE, Probe};
use super::matrix::{Cell, HOLD_NS, OUTSIDE_NS, longest};

/// What the guests with the lock did in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Lock acquisitions.
    pub acquisitions: u64,
    /// CPU time that the vCPUs got, nanoseconds.
    pub ran_ns: u64,
    /// CPU time that there was: host CPUs of the pool times guest time, nanoseconds.
    pub pool_ns: u64,
    /// The waits for the lock.
    pub waits: Waits,
    /// CPU time that went into waiting, at most, nanoseconds; see `spun`.
    pub spin_ns: u64,
    /// Acquisitions of the vCPU with the fewest, per acquisition of the one with the most.
    pub fairness: f64,
    /// Times that a vCPU was put on a CPU.
    pub switches: u64,
    /// Exits.
    pub exits: u64,
    /// Times that a vCPU ran on a waiter's budget.
    pub proxied: u64,
    /// Times that the preemption of a holder was put off.
    pub deferrals: u64,
    /// Times that a holder was preempted; only Baton sees that.
    pub holder_preemptions: u64,
    /// Part of the pool that other processes took, per mille; `None` where the host does not tell.
    pub others_per_mille: Option<u32>,
}

impl Run {
    /// Whether other processes took so much that the numbers are in doubt.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.others_per_mille.is_some_and(|o| o > LIMIT_PER_MILLE)
    }
}

/// How a run came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// As it should.
    Measured(Box<Run>),
    /// This host cannot run it; why.
    Unavailable(String),
    /// Something is wrong with the guest or with Baton; what.
    Failed(String),
    /// The user wants to stop.
    Interrupted,
}

/// Runs `cell` once on `host_cpus`: its vCPUs contend for `time`.
///
/// # Errors
/// What would keep any other cell from running as well.
pub fn run(
    cell: &Cell,
    host_cpus: &[usize],
    time: Duration,
    signals: Option<&StopSignals>,
) -> Result<Outcome, RunError> {
    let config = match cell.config(host_cpus, time) {
        Ok(config) => config,
        Err(reason) => return Ok(Outcome::Unavailable(reason)),
    };
    // One that came between two runs.
    if signals.is_some_and(StopSignals::take) {
        return Ok(Outcome::Interrupted);
    }
    let probe = Probe::start(host_cpus);
    let summary = match run_when_free(&config, signals) {
        Ok(summary) => summary,
        Err(error @ (RunError::Config(_) | RunError::Kvm(_) | RunError::NoSuchCpu { .. })) => {
            return Err(error);
        }
        Err(error) => return Ok(Outcome::Unavailable(error.to_string())),
    };
    let others_per_mille = probe.finish();
    Ok(judge(
        cell,
        &summary,
        host_cpus.len(),
        time,
        others_per_mille,
    ))
}

/// The kernel takes real-time bandwidth back only at the end of the period of a thread that has
/// gone, so that right after another run there may not be enough of it.
fn run_when_free(
    config: &RunConfig,
    signals: Option<&StopSignals>,
) -> Result<RunSummary, RunError> {
    const TRIES: u32 = 10;
    const PERIOD: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match baton_run::run(config, GUEST_ELF, signals) {
            Err(RunError::HostSched(HostSchedError::Deadline { source, .. }))
                if source.raw_os_error() == Some(libc::EBUSY) =>
            {
                thread::sleep(PERIOD);
            }
            result => return result,
        }
    }
    baton_run::run(config, GUEST_ELF, signals)
}

fn judge(
    cell: &Cell,
    summary: &RunSummary,
    cpus: usize,
    time: Duration,
    others_per_mille: Option<u32>,
) -> Outcome {
    if let Some(guest) = summary.guests.iter().find(|guest| !guest.ok) {
        return Outcome::Failed(format!("guest {}: {}", guest.name, guest.end));
    }
    if summary.guests.iter().any(|guest| guest.exit_code.is_none()) {
        let limit = longest(time);
        return if u128::from(summary.elapsed_ns) >= limit.as_nanos() {
            Outcome::Failed(format!("did not end within {} s", limit.as_secs()))
        } else {
            Outcome::Interrupted
        };
    }
    let guests = &summary.guests[..cell.load.lock_guests(cpus).len().min(summary.guests.len())];
    if guests.iter().any(|g| g.workload.counter_ok != Some(true)) {
        return Outcome::Failed(
            "the counter under the lock differs from the acquisitions".to_owned(),
        );
    }
    let mut run = figures(guests, cpus);
    run.others_per_mille = others_per_mille;
    Outcome::Measured(Box::new(run))
}

/// Guests report these numbers, and may report anything; so sums saturate.
fn figures(guests: &[GuestSummary], cpus: usize) -> Run {
    let vcpus = || guests.iter().flat_map(|guest| &guest.vcpus);
    let sum = |of: fn(&VcpuSummary) -> u64| vcpus().map(of).fold(0, u64::saturating_add);
    let most = |key| vcpus().map(|v| result(v, key)).max().unwrap_or(0);
    let mut waits = Waits::default();
    vcpus().for_each(|v| waits.add(&Waits::of_results(&v.results)));
    let acquisitions = |v: &VcpuSummary| result(v, RESULT_ACQUISITIONS);
    let fewest = vcpus().map(acquisitions).min().unwrap_or(0);
    Run {
        acquisitions: sum(acquisitions),
        ran_ns: sum(|v| v.account.counters.runtime_ns),
        pool_ns: most(RESULT_ELAPSED_NS).saturating_mul(cpus as u64),
        waits,
        spin_ns: sum(spun),
        fairness: fewest as f64 / most(RESULT_ACQUISITIONS).max(1) as f64,
        switches: sum(|v| v.account.counters.switches),
        exits: sum(|v| v.account.exits.total()),
        proxied: sum(|v| v.account.counters.proxied),
        deferrals: sum(|v| v.account.counters.deferrals),
        holder_preemptions: sum(|v| v.account.counters.holder_preemptions),
        others_per_mille: None,
    }
}

fn result(vcpu: &VcpuSummary, key: u32) -> u64 {
    vcpu.results.get(&key).copied().unwrap_or(0)
}

/// CPU time that a vCPU waited away, nanoseconds: not more than it waited, and not more than it ran
/// beyond the work that its acquisitions took. Both are upper bounds: part of a wait may have passed
/// off the CPU, and what it ran beyond its work is also start, exits and the lock's own instructions.
fn spun(vcpu: &VcpuSummary) -> u64 {
    let work = result(vcpu, RESULT_ACQUISITIONS).saturating_mul(HOLD_NS + OUTSIDE_NS);
    vcpu.account
        .counters
        .runtime_ns
        .saturating_sub(work)
        .min(result(vcpu, RESULT_WAIT_SUM_NS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Load, Lock, Policy};
    use baton_abi::testdev::{RESULT_COUNTER, RESULT_WAIT_BUCKET, RESULT_WAIT_MAX_NS};
    use baton_abi::wait_buckets::last_ns;
    use baton_host::runner::VcpuAccount;
    use baton_machine::GuestEnd;
    use vcpu_sched::Counters;

    const CELL: Cell = Cell {
        lock: Lock::Tas,
        load: Load::Hog,
        policy: Policy::Baton,
    };

    fn vcpu(ran_ns: u64, results: &[(u32, u64)]) -> VcpuSummary {
        VcpuSummary {
            account: VcpuAccount {
                counters: Counters {
                    runtime_ns: ran_ns,
                    switches: 3,
                    ..Counters::default()
                },
                ..VcpuAccount::default()
            },
            results: results.iter().copied().collect(),
            ..VcpuSummary::default()
        }
    }

    fn lock_guest(counter: u64) -> GuestSummary {
        let vcpus = vec![
            vcpu(
                600_000,
                &[
                    (RESULT_ACQUISITIONS, 100),
                    (RESULT_COUNTER, counter),
                    (RESULT_ELAPSED_NS, 1_000_000),
                    (RESULT_WAIT_SUM_NS, 150_000),
                    (RESULT_WAIT_MAX_NS, 5_000),
                    (RESULT_WAIT_BUCKET + 80, 100),
                ],
            ),
            vcpu(
                400_000,
                &[
                    (RESULT_ACQUISITIONS, 50),
                    (RESULT_ELAPSED_NS, 900_000),
                    (RESULT_WAIT_SUM_NS, 900_000),
                    (RESULT_WAIT_MAX_NS, 9_000),
                    (RESULT_WAIT_BUCKET + 100, 50),
                ],
            ),
        ];
        GuestSummary::new("lock0", &GuestEnd::Exited(0), 0, vcpus)
    }

    fn hog() -> GuestSummary {
        let vcpus = vec![vcpu(7_000_000, &[])];
        GuestSummary::new("hog", &GuestEnd::Exited(0), 0, vcpus)
    }

    fn outcome(guests: Vec<GuestSummary>, elapsed_ns: u64) -> Outcome {
        let summary = RunSummary {
            guests,
            elapsed_ns,
            ..RunSummary::default()
        };
        judge(&CELL, &summary, 2, Duration::from_secs(1), Some(120))
    }

    #[test]
    fn only_the_guests_with_the_lock_count() {
        let Outcome::Measured(run) = outcome(vec![lock_guest(150), hog()], 1) else {
            panic!("measured");
        };
        assert_eq!((run.acquisitions, run.ran_ns), (150, 1_000_000));
        assert_eq!((run.pool_ns, run.switches), (2_000_000, 6));
        assert_eq!(run.waits.max_ns, 9_000);
        assert_eq!(run.waits.percentile(66.0), last_ns(80));
        assert_eq!(run.waits.percentile(67.0), last_ns(100));
        assert_eq!(run.fairness, 0.5);
        assert!(run.is_disturbed());
    }

    #[test]
    fn waiting_costs_no_more_than_the_wait_or_what_work_leaves() {
        let Outcome::Measured(run) = outcome(vec![lock_guest(150), hog()], 1) else {
            panic!("measured");
        };
        assert_eq!(run.spin_ns, 150_000 + (400_000 - 50 * 4_000));
    }

    #[test]
    fn wrong_counter_is_a_failure() {
        assert!(matches!(
            outcome(vec![lock_guest(149), hog()], 1),
            Outcome::Failed(_)
        ));
    }

    #[test]
    fn guest_that_failed_is_named() {
        let failed = GuestSummary::new("hog", &GuestEnd::Exited(3), 0, Vec::new());
        assert_eq!(
            outcome(vec![lock_guest(150), failed], 1),
            Outcome::Failed("guest hog: failed with code 3".to_owned())
        );
    }

    #[test]
    fn stopped_run_is_a_failure_only_after_the_time_limit() {
        let stopped = || GuestSummary::new("hog", &GuestEnd::Killed, 0, Vec::new());
        assert_eq!(
            outcome(vec![lock_guest(150), stopped()], 5),
            Outcome::Interrupted
        );
        assert!(matches!(
            outcome(vec![lock_guest(150), stopped()], 41_000_000_000),
            Outcome::Failed(_)
        ));
    }
}
