//! The built-in guest on real KVM under our own policy.

mod common;

use common::{assert_locks_held, assert_paid, baton, file, number, run_baton, sum, vcpus};

/// Every lock, overcommitted, in both forms of the seam: mutual exclusion holds while vCPUs move
/// between host CPUs and budgets, and every charge has one who ran.
fn locks_hold(name: &str, flags: &[&str]) {
    let guest = |lock, wait| {
        format!(
            "[[guest]]\nname = \"{lock}-{wait}\"\ncpus = 4\n\
             cmdline = \"lock={lock} wait={wait} hints=on acquisitions=3000\"\n"
        )
    };
    let all = ["tas", "ticket", "mcs"].map(|lock| guest(lock, "spin") + &guest(lock, "halt"));
    let (code, summary) = run_baton(name, &all.concat(), flags);
    assert_eq!(code, 0, "{summary}");
    assert_locks_held(&summary, 12_000);
}

#[test]
fn locks_hold_when_executors_run_vcpus_themselves() {
    locks_hold("direct.toml", &["--vcpu-threads", "off"]);
}

#[test]
fn locks_hold_when_vcpus_have_threads() {
    locks_hold("threads.toml", &["--vcpu-threads", "on"]);
}

/// A waiter that names a holder may be stopped; the holder lets go, queues behind it and is stopped as
/// well. The word of the first is stale then, and the first in the queue is the one to carry.
#[test]
fn queues_for_a_lock_under_equal_hard_budgets_are_never_taken_for_a_circle() {
    let guest = |lock| {
        format!(
            "[[guest]]\nname = \"{lock}\"\ncpus = 4\nreservation = \"2ms/10ms,hard\"\n\
             cmdline = \"lock={lock} hints=on acquisitions=20000\"\n"
        )
    };
    let all = ["ticket", "mcs"].map(guest).concat();
    let (code, summary) = run_baton("no-circle.toml", &all, &["--defer", "off"]);
    assert_eq!(code, 0, "{summary}");
    for guest in 0..2 {
        let guest = &summary["guests"][guest];
        assert!(sum(guest, "proxied") > 0, "waiters met holders: {summary}");
        assert_eq!(sum(guest, "cycles"), 0, "{summary}");
    }
}

const INVERSION: &str = r#"
    [[guest]]
    name = "inversion"
    cpus = 2
    cmdline = "workload=throttled-holder hold=2ms outside=1ms seconds=1 hints=on"
    vcpu_reservations = ["1ms/100ms,hard", "5ms/10ms,hard"]
"#;

#[test]
fn a_throttled_holder_runs_on_its_waiters_budget() {
    let (code, summary) = run_baton(
        "inversion.toml",
        INVERSION,
        &["--proxy", "on", "--defer", "off"],
    );
    assert_eq!(code, 0, "{summary}");
    let [holder, waiter] = [0, 1].map(|v| &summary["guests"][0]["vcpus"][v]);
    assert!(
        number(holder, "proxied") > 0 && number(holder, "received_ns") > 0,
        "{summary}"
    );
    assert_eq!(number(holder, "received_ns"), number(waiter, "donated_ns"));
    assert!(
        number(holder, "ran_ns") > number(holder, "charged_ns"),
        "it ran for longer than its own budget paid for: {summary}"
    );
}

#[test]
fn without_proxying_nobody_runs_on_anothers_budget() {
    let (code, summary) = run_baton("alone.toml", INVERSION, &["--proxy", "off"]);
    assert_eq!(code, 0, "{summary}");
    let guest = &summary["guests"][0];
    assert_eq!(
        (sum(guest, "proxied"), sum(guest, "donated_ns")),
        (0, 0),
        "{summary}"
    );
    assert_paid(guest);
}

/// What a hard reservation may be charged in a run: a budget for each period that began, and one
/// overrun, which is paid back from the next budget. The overrun is CPU time between the end of the
/// budget and the exit: the grace of 50 us, a signal and an exit; 1 ms is many times that.
fn most(budget_ms: u64, period_ms: u64, elapsed_ns: u64) -> u64 {
    (elapsed_ns / (period_ms * 1_000_000) + 1) * budget_ms * 1_000_000 + 1_000_000
}

#[test]
fn no_guest_gets_more_than_its_hard_reservations_whether_its_hints_lie_or_not() {
    let (_, summary) = run_baton(
        "bounds.toml",
        r#"
        duration = "10s"
        [[guest]]
        name = "liar"
        cpus = 4
        cmdline = "workload=liar seconds=0"
        reservation = "1ms/10ms,hard"
        [[guest]]
        name = "storm"
        cpus = 2
        cmdline = "workload=doorbell-storm seconds=0"
        reservation = "2ms/10ms,hard"
        [[guest]]
        name = "honest"
        cpus = 4
        cmdline = "lock=ticket hold=2us outside=2us seconds=0 hints=on"
        reservation = "2ms/10ms,hard"
        [[guest]]
        name = "hog"
        cpus = 2
        cmdline = "workload=hog seconds=0"
        "#,
        &[],
    );
    let elapsed = number(&summary, "elapsed_ns");
    for (guest, budget) in [(0, 1), (1, 2), (2, 2)] {
        let guest = &summary["guests"][guest];
        for vcpu in guest["vcpus"].as_array().expect("vCPUs") {
            assert!(
                number(vcpu, "charged_ns") <= most(budget, 10, elapsed),
                "{guest}"
            );
        }
        assert_paid(guest);
        assert!(sum(guest, "ran_ns") > 0, "{guest}");
    }
    // Reservations take 1.6 CPUs. There is a rest only if neighbours leave the executors more.
    let executors = summary["executors"].as_array().expect("executors");
    let given: u64 = executors
        .iter()
        .map(|executor| number(executor, "busy_ns") + number(executor, "idle_ns"))
        .sum();
    assert!(
        sum(&summary["guests"][3], "ran_ns") > 0 || given < elapsed * 17 / 10,
        "the rest is not starved: {summary}"
    );
}

#[test]
fn halts_and_wakes_pass_the_policy_and_none_is_lost() {
    for threads in ["off", "on"] {
        let (code, summary) = run_baton(
            "halts.toml",
            "[[guest]]\nname = \"halts\"\ncpus = 4\ncmdline = \"workload=halt count=50 period=1ms\"\n",
            &["--vcpu-threads", threads],
        );
        assert_eq!(code, 0, "threads {threads}: {summary}");
    }
}

#[test]
fn idle_and_wake_doorbells_lose_no_wake() {
    let (code, summary) = run_baton(
        "pingpong.toml",
        "[[guest]]\nname = \"pair\"\ncpus = 2\ncmdline = \"workload=pingpong acquisitions=2000\"\n",
        &[],
    );
    assert_eq!(code, 0, "{summary}");
}

/// vCPUs that halt and are out of budget most of the time: a doorbell for one that is throttled finds it
/// asleep in KVM, where it stays until there is a budget.
#[test]
fn doorbells_for_throttled_vcpus_asleep_in_kvm_keep_nobody_from_its_end() {
    for threads in ["off", "on"] {
        let (code, summary) = run_baton(
            &format!("throttled-wakes-{threads}.toml"),
            r#"
            [[guest]]
            name = "storm"
            cpus = 4
            cmdline = "workload=wake-storm seconds=0.5 hints=on"
            vcpu_reservations = ["4ms/10ms,hard", "100us/5ms,hard", "100us/5ms,hard", "100us/5ms,hard"]
            "#,
            &["--vcpu-threads", threads],
        );
        assert_eq!(code, 0, "threads {threads}: {summary}");
        let guest = &summary["guests"][0];
        for vcpu in vcpus(guest).skip(1) {
            assert!(
                number(vcpu, "throttled_ns") > 0,
                "threads {threads}: {guest}"
            );
        }
        assert_paid(guest);
    }
}

#[test]
fn a_vcpu_that_finds_its_last_cpu_taken_moves_and_a_pinned_one_stays() {
    const ROUNDS: u64 = 400;
    let migrations = |name: &str, own: [&str; 3]| {
        let text = format!(
            "[[guest]]\nname = \"three\"\ncpus = 3\nvcpu_host_cpus = {own:?}\n\
             cmdline = \"workload=roam acquisitions={} hints=on\"\n",
            ROUNDS / 2
        );
        let (code, summary) = run_baton(name, &text, &["--host-cpus", "0-1"]);
        assert_eq!(code, 0, "{summary}");
        let guest = &summary["guests"][0];
        assert_eq!(guest["workload"]["acquisitions"], ROUNDS, "{guest}");
        let each: Vec<_> = vcpus(guest)
            .map(|vcpu| number(vcpu, "migrations"))
            .collect();
        assert_eq!(each[..2], [0, 0], "those that are pinned stay");
        each[2]
    };
    assert_eq!(migrations("stays.toml", ["0", "0", "1"]), 0);
    assert!(migrations("moves.toml", ["0", "1", ""]) >= ROUNDS - 1);
}

#[test]
fn a_holder_is_carried_for_each_wait_of_a_more_urgent_waiter() {
    let (code, summary) = run_baton(
        "carry.toml",
        r#"
        [[guest]]
        name = "pair"
        cpus = 2
        cmdline = "workload=carry acquisitions=200 hints=on"
        vcpu_reservations = ["", "5ms/10ms,soft"]
        "#,
        &["--host-cpus", "0", "--defer", "off"],
    );
    assert_eq!(code, 0, "{summary}");
    let [holder, waiter] = [0, 1].map(|v| &summary["guests"][0]["vcpus"][v]);
    assert_eq!(waiter["results"]["acquisitions"], 200, "{summary}");
    assert!(
        waiter["results"]["wait_rings"].as_u64() >= Some(200),
        "{summary}"
    );
    assert!(number(holder, "holder_preemptions") >= 200, "{summary}");
    assert!(number(holder, "proxied") >= 200, "{summary}");
    assert!(
        holder["results"]["release_rings"].as_u64() >= Some(200),
        "{summary}"
    );
    assert_eq!(number(holder, "received_ns"), number(waiter, "donated_ns"));
    assert_eq!(
        number(waiter, "received_ns"),
        0,
        "only one of them is carried"
    );
}

/// Threads of process `pid` whose names begin with `prefix`: the CPUs where they may run.
fn cpus_of_threads(pid: u32, prefix: &str) -> Vec<String> {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks
        .filter_map(|task| Some(task.ok()?.path()))
        .filter(|task| read(task.join("comm")).starts_with(prefix))
        .filter_map(|task| {
            let status = read(task.join("status"));
            let mut lines = status.lines();
            let cpus = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some(cpus.trim().to_owned())
        })
        .collect()
}

#[test]
fn a_halted_vcpu_sleeps_where_it_may_run() {
    let kvm = baton_machine::kvm::open().expect("KVM");
    if let Err(error) = baton_host::halt::check_wake_step(&kvm) {
        eprintln!("not tested: {error}");
        return;
    }
    let config = file(
        "sleeps.toml",
        b"[[guest]]\nname = \"sleeper\"\ncpus = 2\nhost_cpus = \"1\"\n\
          cmdline = \"workload=idle seconds=0 idle=hlt\"\n",
    );
    for (threads, prefix) in [("off", "halt"), ("on", "1:sleeper")] {
        let config = config.to_string_lossy();
        let words = [
            "run",
            &*config,
            "--vcpu-threads",
            threads,
            "--host-cpus",
            "0-1",
        ];
        let child = common::start(&words);
        let pid = child.id();
        // In the second form a vCPU's thread is pinned where it runs, and goes back when it sleeps.
        while cpus_of_threads(pid, prefix).is_empty()
            || cpus_of_threads(pid, prefix).iter().any(|cpus| cpus != "1")
        {
            std::thread::yield_now();
        }
        common::interrupt(&child);
        assert_eq!(common::finish(child).code, 0);
    }
}

#[test]
fn a_triple_fault_ends_only_its_guest_and_frees_its_vcpus() {
    let (code, summary) = run_baton(
        "faults.toml",
        r#"
        [[guest]]
        name = "bad"
        cpus = 2
        cmdline = "workload=triplefault"
        reservation = "2ms/10ms"
        [[guest]]
        name = "good"
        cpus = 2
        cmdline = "lock=ticket hints=on acquisitions=1000"
        "#,
        &[],
    );
    assert_eq!(code, common::GUESTS_FAILED, "{summary}");
    assert_eq!(summary["guests"][0]["ok"], false);
    assert_eq!(summary["guests"][1]["ok"], true, "{summary}");
}

#[test]
fn a_reservation_that_does_not_fit_is_refused_with_what_would() {
    let config = file(
        "full.toml",
        b"[[guest]]\nname = \"big\"\ncpus = 64\ncmdline = \"workload=boot\"\nreservation = \"9ms/10ms\"\n",
    );
    let ran = baton(&["run", &config.to_string_lossy(), "--host-cpus", "0"]);
    assert_eq!(ran.code, common::FAILED);
    assert!(
        ran.stderr
            .contains("guest big, vCPU 1: this reservation needs 90.0 % of a CPU"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{ran:?}");
}

#[test]
fn pinned_vcpus_whose_holder_is_pinned_elsewhere_make_progress() {
    let (code, summary) = run_baton(
        "pinned.toml",
        r#"
        [[guest]]
        name = "pinned"
        cpus = 4
        cmdline = "lock=ticket hints=on acquisitions=2000"
        vcpu_host_cpus = ["0", "1", "0", "1"]
        "#,
        &["--host-cpus", "0-1"],
    );
    assert_eq!(code, 0, "{summary}");
    assert_eq!(summary["guests"][0]["workload"]["counter_ok"], true);
}
