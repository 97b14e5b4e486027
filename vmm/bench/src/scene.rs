//! One preempted critical section, recorded with and without proxying: a holder whose budget is too
//! small for its critical section, and a waiter that has plenty.

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

use super::matrix::Policy;

const MS: Ns = 1_000_000;
/// The holder: vCPU 0. It needs two periods for its 2 ms under the lock.
const HOLDER: Reservation = hard(MS, 10 * MS);
/// The waiter: vCPU 1. The holder waits too, but mostly for its own budget.
const WAITER: Reservation = hard(5 * MS, 10 * MS);
const WAITER_ID: VcpuId = VcpuId(1);
const WORDS: &str =
    "workload=throttled-holder lock=ticket hold=2ms outside=1ms acquisitions=16 log=on";
/// Waits to choose from, the first ones: what comes after them is to be seen too.
const CANDIDATES: usize = 8;
/// Host CPUs that it takes: with one more, both vCPUs run undisturbed.
const CPUS: usize = 2;
/// It takes a tenth of that.
const LONGEST: Duration = Duration::from_secs(10);
/// What is shown before and after the longer of the two waits: a part of it.
const AROUND: Ns = 8;

const fn hard(budget_ns: Ns, period_ns: Ns) -> Reservation {
    Reservation {
        budget_ns,
        period_ns,
        deadline_ns: period_ns,
        hard: true,
    }
}

/// Why there is nothing to see.
#[derive(Debug, Error)]
pub enum SceneError {
    /// No run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run that did not end as it should.
    #[error("the guest {0}")]
    Guest(String),
    /// A run without what is to be shown.
    #[error("no wait for the lock was recorded")]
    NoWait,
}

/// One recorded run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Who scheduled.
    pub policy: Policy,
    /// The pool: number of each host CPU.
    pub host_cpus: Vec<usize>,
    /// What is shown, from when to when, ns.
    pub window: (Ns, Ns),
    /// What host CPUs and vCPUs did in that time.
    pub lanes: Lanes,
    /// The vCPU that waits.
    pub waiter: VcpuId,
    /// Its longest wait, and what the waiter then did under the lock.
    pub wait: Section,
    /// All critical sections in that time.
    pub sections: Vec<(VcpuId, Section)>,
}

/// The scene without and with proxying, or why it could not be recorded.
pub type Scenes = Result<[Scene; 2], SceneError>;

/// Records the scene without and with proxying on (some of) `host_cpus`. Both show equally much time,
/// from just before the longest wait of each.
///
/// # Errors
/// If a run fails, or nobody waited in it.
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
    guest.cmdline = format!("{WORDS} {}", policy.words());
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

/// All critical sections, by vCPU.
fn sections(summary: &RunSummary) -> impl Iterator<Item = (VcpuId, Section)> {
    let vcpus = summary.guests.iter().flat_map(|guest| &guest.vcpus);
    (0..)
        .zip(vcpus)
        .flat_map(|(id, vcpu)| vcpu.sections.iter().map(move |s| (VcpuId(id), *s)))
}

/// The waiter's longest wait of those that were recorded from their start to their end.
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
        window: (from, to),
        lanes: Lanes::of(events.unwrap_or_default(), from, to),
        waiter: WAITER_ID,
        wait,
        sections: sections(summary)
            .filter(|(_, section)| section.asked < to && section.released > from)
            .collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use baton_observe::recorder::Moment;
    use baton_run::summary::{GuestSummary, VcpuSummary};
    use vcpu_sched::{CpuId, Event};

    fn section(asked: Ns, got: Ns, released: Ns) -> Section {
        Section {
            asked,
            got,
            released,
        }
    }

    /// vCPU 0 has the lock from 100 to 500 and runs half of that, and wants it again from 510 on;
    /// vCPU 1 wants it from 200 to 500.
    fn summary() -> RunSummary {
        let vcpu = |sections: &[Section]| VcpuSummary {
            sections: sections.to_vec(),
            ..VcpuSummary::default()
        };
        let guest = GuestSummary {
            ok: true,
            vcpus: vec![
                vcpu(&[section(100, 100, 500), section(510, 990, 999)]),
                vcpu(&[section(5, 90, 95), section(200, 500, 510)]),
            ],
            ..GuestSummary::default()
        };
        let (cpu, holder) = (CpuId(0), VcpuId(0));
        let pick = Event::Pick {
            cpu,
            donor: holder,
            curr: holder,
            chain: 0,
        };
        let stop = Event::Stop {
            cpu,
            donor: holder,
            curr: holder,
            ran: 200,
        };
        RunSummary {
            host_cpus: vec![3],
            guests: vec![guest],
            moment: Some(Moment {
                events: vec![(90, pick), (300, stop), (1000, Event::Wake(VcpuId(1)))],
                start: 90,
                end: 1000,
            }),
            ..RunSummary::default()
        }
    }

    /// A scene in which vCPU 1 waits for 300 ns on host CPU 3.
    pub fn example(policy: Policy) -> Scene {
        let summary = summary();
        let wait = longest_wait(&summary).expect("a wait");
        scene(policy, &summary, wait, 400)
    }

    #[test]
    fn the_longest_recorded_wait_is_shown_with_what_is_around_it() {
        let scene = example(Policy::Baton);
        assert_eq!((scene.waiter, scene.wait.wait_ns()), (VcpuId(1), 300));
        assert_eq!(scene.window, (150, 650));
        let shown: Vec<VcpuId> = scene.sections.iter().map(|(id, _)| *id).collect();
        assert_eq!(shown, [VcpuId(0), VcpuId(0), VcpuId(1)]);
        let busy = &scene.lanes.cpus[&0];
        assert_eq!((busy.len(), busy[0].from, busy[0].to), (1, 150, 300));
    }

    #[test]
    fn without_a_wait_or_with_a_guest_that_failed_there_is_no_scene() {
        let mut none = summary();
        none.guests[0].vcpus[1].sections.clear();
        assert!(matches!(longest_wait(&none), Err(SceneError::NoWait)));
        let mut unheard = summary();
        unheard.moment = None;
        assert!(matches!(longest_wait(&unheard), Err(SceneError::NoWait)));
        let mut failed = summary();
        failed.guests[0].ok = false;
        assert!(matches!(longest_wait(&failed), Err(SceneError::Guest(_))));
    }

    #[test]
    fn both_runs_differ_in_what_baton_may_do_and_record_all() {
        for (policy, proxy) in [(Policy::BatonNoHints, false), (Policy::Baton, true)] {
            let config = config(policy, &[0]);
            config.validate().expect("runs");
            assert_eq!((config.proxy, config.timeline), (proxy, Timeline::Whole));
        }
    }
}
