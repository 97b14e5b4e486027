//! One run of one cell: its figures, or the reason why it has none.

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

use super::cell::{Cell, HOLD_NS, OUTSIDE_NS, longest};
use super::disturbance::{DisturbanceProbe, LIMIT_PER_MILLE};
use crate::process_run;

/// The figures of the guests with the lock in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockRun {
    /// Lock acquisitions.
    pub acquisitions: u64,
    /// CPU time that the vCPUs got, nanoseconds.
    pub ran_ns: u64,
    /// CPU time of the pool: number of host CPUs times guest time, nanoseconds.
    pub pool_ns: u64,
    /// The waits for the lock.
    pub waits: Waits,
    /// Upper bound of the CPU time that went into waiting, nanoseconds; see `spun`.
    pub spin_ns: u64,
    /// Acquisitions of the vCPU with the fewest, divided by those of the vCPU with the most.
    pub fairness: f64,
    /// Times that a vCPU was put on a CPU.
    pub switches: u64,
    /// Number of exits.
    pub exits: u64,
    /// Times that a vCPU ran on a waiter's budget.
    pub proxied: u64,
    /// Times that the preemption of a holder was deferred.
    pub deferrals: u64,
    /// Times that a holder was preempted; counted only under Baton.
    pub holder_preemptions: u64,
    /// Part of the pool's CPU time that other processes took, per mille; `None` if it cannot be read.
    pub others_per_mille: Option<u32>,
}

impl LockRun {
    /// Whether other processes took so much CPU time that the figures are in doubt.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.others_per_mille.is_some_and(|o| o > LIMIT_PER_MILLE)
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum RunOutcome {
    /// The run ended well.
    Measured(Box<LockRun>),
    /// This host cannot make the run; the text is the reason.
    Unavailable(String),
    /// The guest or Baton failed; the text is what happened.
    Failed(String),
    /// The user stopped the benchmark.
    Interrupted,
}

/// Runs `cell` once on `host_cpus`; its vCPUs contend for `time`.
///
/// # Errors
/// If the run fails for a reason that would make the runs of all other cells fail, too.
pub fn run(
    cell: &Cell,
    host_cpus: &[usize],
    time: Duration,
    signals: Option<&StopSignals>,
) -> Result<RunOutcome, RunError> {
    let config = match cell.config(host_cpus, time) {
        Ok(config) => config,
        Err(reason) => return Ok(RunOutcome::Unavailable(reason)),
    };
    // A signal may have arrived between two runs.
    if signals.is_some_and(StopSignals::take) {
        return Ok(RunOutcome::Interrupted);
    }
    let probe = DisturbanceProbe::start(host_cpus);
    let result = match cell.policy.has_processes() {
        true => match process_run::run(&config, signals) {
            Ok(Some(summary)) => Ok(summary),
            Ok(None) => return Ok(RunOutcome::Interrupted),
            Err(error) => return Ok(RunOutcome::Unavailable(error.to_string())),
        },
        false => run_when_free(&config, signals),
    };
    let summary = match result {
        Ok(summary) => summary,
        Err(error @ (RunError::Config(_) | RunError::Kvm(_) | RunError::NoSuchCpu { .. })) => {
            return Err(error);
        }
        Err(error) => return Ok(RunOutcome::Unavailable(error.to_string())),
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

/// Runs the guests, again if the kernel lacks real-time bandwidth: it takes the bandwidth of a thread that
/// has ended back only at the end of the thread's period, so there may be too little right after a run.
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

/// The outcome of a run with this summary.
fn judge(
    cell: &Cell,
    summary: &RunSummary,
    cpus: usize,
    time: Duration,
    others_per_mille: Option<u32>,
) -> RunOutcome {
    if let Some(guest) = summary.guests.iter().find(|guest| !guest.ok) {
        return RunOutcome::Failed(format!("guest {}: {}", guest.name, guest.end));
    }
    if summary.guests.iter().any(|guest| guest.exit_code.is_none()) {
        let limit = longest(time);
        return if u128::from(summary.elapsed_ns) >= limit.as_nanos() {
            RunOutcome::Failed(format!("did not end within {} s", limit.as_secs()))
        } else {
            RunOutcome::Interrupted
        };
    }
    let guests = &summary.guests[..cell.load.lock_guests(cpus).len().min(summary.guests.len())];
    if guests.iter().any(|g| g.workload.counter_ok != Some(true)) {
        return RunOutcome::Failed(
            "the counter under the lock differs from the acquisitions".to_owned(),
        );
    }
    let mut run = figures(guests, cpus);
    run.others_per_mille = others_per_mille;
    RunOutcome::Measured(Box::new(run))
}

/// The figures of a run. Sums saturate, because guests report some of these numbers and may report anything.
fn figures(guests: &[GuestSummary], cpus: usize) -> LockRun {
    let vcpus = || guests.iter().flat_map(|guest| &guest.vcpus);
    let sum = |of: fn(&VcpuSummary) -> u64| vcpus().map(of).fold(0, u64::saturating_add);
    let most = |key| vcpus().map(|v| result(v, key)).max().unwrap_or(0);
    let mut waits = Waits::default();
    vcpus().for_each(|v| waits.add(&Waits::of_results(&v.results)));
    let acquisitions = |v: &VcpuSummary| result(v, RESULT_ACQUISITIONS);
    let fewest = vcpus().map(acquisitions).min().unwrap_or(0);
    LockRun {
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

/// Upper bound of the CPU time that a vCPU spent waiting, nanoseconds: the smaller of the time that it waited
/// and the time that it ran beyond the work of its acquisitions. Part of a wait may have passed off the CPU,
/// and the time beyond the work also contains the start, exits and the lock's own instructions.
fn spun(vcpu: &VcpuSummary) -> u64 {
    let work = result(vcpu, RESULT_ACQUISITIONS).saturating_mul(HOLD_NS + OUTSIDE_NS);
    vcpu.account
        .counters
        .runtime_ns
        .saturating_sub(work)
        .min(result(vcpu, RESULT_WAIT_SUM_NS))
}

#[cfg(test)]
mod tests;
