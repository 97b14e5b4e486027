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

/// vCPU 0 holds the lock from 100 to 500 and runs for half of that time, and waits for it again from 510
/// on; vCPU 1 waits for it from 200 to 500.
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
    assert_eq!(scene.shown, (150, 650));
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
    let mut unrecorded = summary();
    unrecorded.moment = None;
    assert!(matches!(longest_wait(&unrecorded), Err(SceneError::NoWait)));
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
