//! Tasks of the built-in guest that its own timer preempts, on real KVM.

mod common;

use serde_json::Value;

use common::{baton, file, number, run_baton, sum, vcpus};

/// Runs the guests of a file under a scheduler. Returns the exit code and the summary.
fn run(sched: &str, name: &str, text: &str) -> (i32, Value) {
    let config = file(&format!("{sched}-{name}"), text.as_bytes());
    let path = config.to_string_lossy();
    let ran = baton(&[
        "run",
        &path,
        "--sched",
        sched,
        "--host-cpus",
        "0-1",
        "--summary",
        "json",
    ]);
    (ran.code, ran.summary())
}

/// Number of times that the guest's tick preempted a task of this vCPU for another task.
fn task_preemptions(vcpu: &Value) -> u64 {
    vcpu["results"]["task_preemptions"].as_u64().unwrap_or(0)
}

fn guests(summary: &Value) -> impl Iterator<Item = &Value> {
    summary["guests"].as_array().expect("guests").iter()
}

/// Each of two tasks spins until the other has made progress.
#[test]
fn of_two_tasks_that_never_yield_both_get_on_only_with_a_tick() {
    let guest = |name, tick| {
        format!(
            "[[guest]]\nname = \"{name}\"\ncpus = 1\n\
             cmdline = \"workload=preempt tasks=2 tick={tick} acquisitions=10\"\n"
        )
    };
    for sched in ["baton", "host"] {
        let both = guest("ticks", "1ms") + &guest("waits", "off");
        let text = format!("until_guest = \"ticks\"\n{both}");
        let (code, summary) = run(sched, "two-tasks.toml", &text);
        let [ticks, waits] = [0, 1].map(|guest| &summary["guests"][guest]);
        assert_eq!(code, 0, "{summary}");
        assert_eq!(ticks["workload"]["counter_ok"], true, "{summary}");
        let vcpu = &ticks["vcpus"][0];
        assert!(task_preemptions(vcpu) >= 10, "one a round: {summary}");
        assert_eq!(waits["end"], "stopped when the run ended", "{summary}");
    }
}

/// Holds that are longer than a tick: the first owner of all has siblings that have not yet run, so it
/// loses its vCPU with the mutex. And short ones, many.
#[test]
fn a_mutex_holds_though_its_owners_are_preempted() {
    let guest = |idle, hints, work| {
        format!(
            "[[guest]]\nname = \"{idle}-{hints}\"\ncpus = 4\n\
             cmdline = \"lock=mutex tasks=3 tick=1ms idle={idle} hints={hints} {work}\"\n"
        )
    };
    for sched in ["baton", "host"] {
        let all = [
            guest("auto", "on", "hold=2ms outside=100us acquisitions=9"),
            guest("hlt", "off", "hold=2ms outside=100us acquisitions=9"),
            guest("auto", "off", "acquisitions=600"),
            guest("hlt", "on", "acquisitions=600"),
        ];
        let (code, summary) = run(sched, "owners.toml", &all.concat());
        assert_eq!(code, 0, "{summary}");
        for guest in guests(&summary) {
            assert_eq!(guest["workload"]["counter_ok"], true, "{summary}");
            let acquisitions = number(&guest["workload"], "acquisitions");
            assert!([4 * 9, 4 * 600].contains(&acquisitions), "{summary}");
        }
        for guest in guests(&summary).take(2) {
            let preempted: u64 = vcpus(guest).map(task_preemptions).sum();
            assert!(preempted > 0, "{summary}");
        }
    }
}

/// On even vCPUs the owner gives the mutex back only after its siblings have run, and it after them;
/// odd ones sleep for it.
#[test]
fn owners_that_wait_for_their_siblings_come_back_and_sleepers_elsewhere_are_woken() {
    let guest = |idle, hints| {
        format!(
            "[[guest]]\nname = \"{idle}-{hints}\"\ncpus = 4\n\
             cmdline = \"workload=preempt tasks=3 tick=1ms idle={idle} hints={hints} acquisitions=10\"\n"
        )
    };
    for sched in ["baton", "host"] {
        let idles = ["auto", "hlt"].map(|idle| guest(idle, "on") + &guest(idle, "off"));
        let (code, summary) = run(sched, "siblings.toml", &idles.concat());
        assert_eq!(code, 0, "{summary}");
        for guest in guests(&summary) {
            assert_eq!(guest["workload"]["counter_ok"], true, "{summary}");
            for (index, vcpu) in vcpus(guest).enumerate() {
                assert_eq!(number(&vcpu["results"], "acquisitions"), 10);
                let preempted = task_preemptions(vcpu);
                if index % 2 == 0 {
                    assert!(preempted >= 10, "one a round: {summary}");
                } else {
                    assert_eq!(preempted, 0, "it has one task: {summary}");
                }
            }
        }
    }
}

/// vCPU 0 has 1 ms in 20 ms, and needs several milliseconds to run a sibling and to return to the owner.
#[test]
fn a_sleepers_budget_carries_a_vcpu_whose_owner_is_preempted() {
    let (code, summary) = run_baton(
        "carried-siblings.toml",
        r#"
        [[guest]]
        name = "carried"
        cpus = 2
        cmdline = "workload=preempt tasks=2 tick=1ms hints=on acquisitions=10"
        vcpu_reservations = ["1ms/20ms,hard", "5ms/10ms,hard"]
        "#,
        &["--proxy", "on"],
    );
    assert_eq!(code, 0, "{summary}");
    let guest = &summary["guests"][0];
    assert_eq!(guest["workload"]["counter_ok"], true, "{summary}");
    let [owner, sleeper] = [0, 1].map(|vcpu| &guest["vcpus"][vcpu]);
    assert!(task_preemptions(owner) >= 10, "{summary}");
    assert!(number(owner, "received_ns") > 0, "{summary}");
    assert_eq!(
        number(owner, "received_ns"),
        number(sleeper, "donated_ns"),
        "{summary}"
    );
}

/// vCPU 1 holds the mutex for 2 ms of CPU time, of which it has 1 ms in 20 ms. The first task of vCPU 0
/// sleeps for it; if there is another one to run, the vCPU has use for its budget itself.
#[test]
fn a_vcpu_with_a_task_to_run_lends_nothing_though_another_one_sleeps() {
    for (tasks, lends) in [(1, true), (2, false)] {
        let guest = format!(
            "[[guest]]\nname = \"busy\"\ncpus = 2\n\
             cmdline = \"workload=preempt tasks={tasks} tick=1ms hints=on hold=2ms acquisitions=4\"\n\
             vcpu_reservations = [\"5ms/10ms,hard\", \"1ms/20ms,hard\"]\n"
        );
        let (code, summary) = run_baton("busy-siblings.toml", &guest, &["--proxy", "on"]);
        assert_eq!(code, 0, "{summary}");
        let guest = &summary["guests"][0];
        assert_eq!(guest["workload"]["counter_ok"], true, "{summary}");
        let lent = number(&guest["vcpus"][0], "donated_ns");
        assert_eq!(lent > 0, lends, "{tasks} tasks: {summary}");
        assert_eq!(sum(guest, "donated_ns"), sum(guest, "received_ns"));
    }
}
