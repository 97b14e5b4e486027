//! One preempted critical section, recorded with and without proxying: the budget of the holder is too small
//! for its critical section, and the budget of the waiter is large.

use std::time::Duration;

use baton_config::{GuestConfig, LateHalts, Reservation, RunConfig, Timeline};
use baton_machine::testdev::Section;
use baton_observe::timeline::lanes::Lanes;
use baton_os::signals::StopSignals;
use baton_run::RunError;
use baton_run::summary::RunSummary;
use guest_tests::GUEST_ELF;
use thiserror::Error;
use vcpu_sched::{Ns, VcpuId};

use super::axes::Policy;

const MS: Ns = 1_000_000;
/// The holder: vCPU 0. It needs two periods for its 2 ms under the lock.
const HOLDER: Reservation = hard(MS, 10 * MS);
/// The waiter: vCPU 1. The holder waits as well, but mostly for its next budget.
const WAITER: Reservation = hard(5 * MS, 10 * MS);
const WAITER_ID: VcpuId = VcpuId(1);
const WORDS: &str =
    "workload=throttled-holder lock=ticket hold=2ms outside=1ms acquisitions=16 log=on";
/// Number of waits to choose from, the first ones, so that the run goes on after the chosen one.
const CANDIDATES: usize = 8;
/// Largest number of host CPUs in the pool: with more, both vCPUs would run undisturbed.
const CPUS: usize = 2;
/// Longest duration of a run, which usually takes a tenth of it.
const LONGEST: Duration = Duration::from_secs(10);
/// The part of the longer of the two waits that is shown before and after it, as a divisor.
const AROUND: Ns = 8;

const fn hard(budget_ns: Ns, period_ns: Ns) -> Reservation {
    match Reservation::hard(budget_ns, period_ns) {
        Ok(reservation) => reservation,
        Err(_) => panic!("it is within the bounds"),
    }
}

/// The scene could not be recorded.
#[derive(Debug, Error)]
pub enum SceneError {
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The guest did not end well.
    #[error("the guest {0}")]
    Guest(String),
    /// The waiter never waited for the lock while the run was recorded.
    #[error("no wait for the lock was recorded")]
    NoWait,
}

/// One recorded run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The policy of the run.
    pub policy: Policy,
    /// The numbers of the host CPUs in the pool.
    pub host_cpus: Vec<usize>,
    /// Start and end of the time that is shown, nanoseconds.
    pub shown: (Ns, Ns),
    /// What host CPUs and vCPUs did in that time.
    pub lanes: Lanes,
    /// The vCPU that waits.
    pub waiter: VcpuId,
    /// The waiter's longest wait, and its critical section after that.
    pub wait: Section,
    /// All critical sections in that time.
    pub sections: Vec<(VcpuId, Section)>,
}

/// The scene without and with proxying, or the reason why it could not be recorded.
pub type Scenes = Result<[Scene; 2], SceneError>;

/// Records the scene without and with proxying, on at most two of `host_cpus`. Both show the same length of
/// time, from just before the longest wait of each.
///
/// # Errors
/// If a run fails, or the waiter did not wait in it.
pub fn record(host_cpus: &[usize], signals: Option<&StopSignals>) -> Scenes {
    let pool = &host_cpus[..host_cpus.len().min(CPUS)];
    let mut summaries = Vec::new();
    for policy in [Policy::BatonNoHints, Policy::Baton] {
        summaries.push((
            policy,
            baton_run::run(&config(policy, pool), GUEST_ELF, signals)?,
        ));
    }
    let waits = summaries
        .iter()
        .map(|(_, summary)| longest_wait(summary))
        .collect::<Result<Vec<_>, _>>()?;
    let length = waits.iter().map(Section::wait_ns).max().unwrap_or(0);
    let scenes: Vec<Scene> = summaries
        .iter()
        .zip(waits)
        .map(|((policy, summary), wait)| scene(*policy, summary, wait, length))
        .collect();
    scenes.try_into().map_err(|_| SceneError::NoWait)
}

fn config(policy: Policy, host_cpus: &[usize]) -> RunConfig {
    let mut guest = GuestConfig::new("scene").with_cpus(2);
    guest.reservations = vec![Some(HOLDER), Some(WAITER)];
    guest.cmdline = format!("{WORDS} {}", policy.guest_words());
    let mut config = RunConfig {
        guests: vec![guest],
        host_cpus: host_cpus.to_vec(),
        duration: Some(LONGEST),
        timeline: Timeline::Whole,
        late_halts: LateHalts::Allow,
        quiet: true,
        ..RunConfig::default()
    };
    policy.apply(&mut config);
    config
}

/// All critical sections, each with its vCPU.
fn sections(summary: &RunSummary) -> impl Iterator<Item = (VcpuId, Section)> {
    let vcpus = summary.guests.iter().flat_map(|guest| &guest.vcpus);
    (0..)
        .zip(vcpus)
        .flat_map(|(id, vcpu)| vcpu.sections.iter().map(move |s| (VcpuId(id), *s)))
}

/// The longest of the waiter's waits that were recorded from their start to their end.
fn longest_wait(summary: &RunSummary) -> Result<Section, SceneError> {
    if let Some(guest) = summary.guests.iter().find(|guest| !guest.ok) {
        return Err(SceneError::Guest(guest.end.clone()));
    }
    let moment = summary.moment.as_ref().ok_or(SceneError::NoWait)?;
    sections(summary)
        .filter_map(|(id, section)| (id == WAITER_ID).then_some(section))
        .take(CANDIDATES)
        .filter(|section| moment.start <= section.asked && section.got <= moment.end)
        .max_by_key(Section::wait_ns)
        .filter(|section| section.wait_ns() > 0)
        .ok_or(SceneError::NoWait)
}

fn scene(policy: Policy, summary: &RunSummary, wait: Section, length: Ns) -> Scene {
    let around = length / AROUND;
    let from = wait.asked.saturating_sub(around);
    let to = wait.asked.saturating_add(length).saturating_add(around);
    let events = summary.moment.as_ref().map(|moment| &moment.events[..]);
    Scene {
        policy,
        host_cpus: summary.host_cpus.clone(),
        shown: (from, to),
        lanes: Lanes::of(events.unwrap_or_default(), from, to),
        waiter: WAITER_ID,
        wait,
        sections: sections(summary)
            .filter(|(_, section)| section.asked < to && section.released > from)
            .collect(),
    }
}

#[cfg(test)]
pub(super) mod tests;
