//! The built-in guest on real KVM under Baton's policy.

mod common;

use common::{assert_all_charged, assert_locks_held, baton, file, number, run_baton, sum, vcpus};

/// Every lock, overcommitted: mutual exclusion holds while vCPUs move between host CPUs and budgets, and each
/// charge belongs to a vCPU that ran.
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
    locks_hold("inline.toml", &["--vcpu-threads", "off"]);
}

#[test]
fn locks_hold_when_vcpus_have_threads() {
    locks_hold("threads.toml", &["--vcpu-threads", "on"]);
}

/// A waiter that names a holder may be stopped; then the holder releases the lock, queues behind the waiter and
/// is stopped as well. The edge of the first waiter is stale now, and the first vCPU of the queue is proxied.
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
        "it ran for longer than it was charged: {summary}"
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
    assert_all_charged(guest);
}

/// The largest charge of a hard reservation in a run, nanoseconds: a budget for each period that began, and one
/// overrun, which is taken from the next budget. The overrun is CPU time between the end of the budget and the
/// exit: a deferral of 50 us, a signal and an exit. 1 ms is many times that.
fn max_charge_ns(budget_ms: u64, period_ms: u64, elapsed_ns: u64) -> u64 {
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
                number(vcpu, "charged_ns") <= max_charge_ns(budget, 10, elapsed),
                "{guest}"
            );
        }
        assert_all_charged(guest);
        assert!(sum(guest, "ran_ns") > 0, "{guest}");
    }
    // Reservations take 1.6 CPUs. The hog runs only if other processes leave the executors more than that.
    let executors = summary["executors"].as_array().expect("executors");
    let available: u64 = executors
        .iter()
        .map(|executor| number(executor, "busy_ns") + number(executor, "idle_ns"))
        .sum();
    assert!(
        sum(&summary["guests"][3], "ran_ns") > 0 || available < elapsed * 17 / 10,
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

/// The vCPUs halt, and have no budget most of the time. A doorbell for a throttled vCPU finds it asleep in KVM,
/// where it stays until its next budget.
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
        assert_all_charged(guest);
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
        // A slice so long that no turn of the waking vCPU ends while it waits, however busy the host is.
        let flags = ["--host-cpus", "0-1", "--slice", "1s"];
        let (code, summary) = run_baton(name, &text, &flags);
        assert_eq!(code, 0, "{summary}");
        let guest = &summary["guests"][0];
        assert_eq!(guest["workload"]["acquisitions"], ROUNDS, "{guest}");
        let each: Vec<_> = vcpus(guest)
            .map(|vcpu| number(vcpu, "migrations"))
            .collect();
        assert_eq!(each[..2], [0, 0], "pinned vCPUs stay");
        each[2]
    };
    assert_eq!(migrations("stays.toml", ["0", "0", "1"]), 0);
    // In the first round the vCPU may still be starting, on either host CPU. From the second round on, only one
    // of the two is free when it wakes, each time the other one.
    assert!(migrations("moves.toml", ["0", "1", ""]) >= ROUNDS - 2);
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
        "only the holder is carried"
    );
}

/// The CPUs on which the threads of process `pid` may run whose names begin with `prefix`.
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
fn the_sleep_of_a_halted_vcpu_is_charged_to_it_wherever_it_sleeps() {
    let kvm = baton_machine::kvm::open().expect("KVM");
    if let Err(error) = baton_host::halt::check_wake_step(&kvm) {
        eprintln!("not tested: {error}");
        return;
    }
    // Alone on its CPU, a vCPU without a thread of its own sleeps in place.
    for threads in ["off", "on"] {
        let (code, summary) = run_baton(
            &format!("sleep-charged-{threads}.toml"),
            "[[guest]]\nname = \"halts\"\ncmdline = \"workload=halt count=50 period=1ms\"\n",
            &["--vcpu-threads", threads, "--host-cpus", "0"],
        );
        assert_eq!(code, 0, "threads {threads}: {summary}");
        for vcpu in vcpus(&summary["guests"][0]) {
            assert!(number(vcpu, "sleep_ns") > 0, "threads {threads}: {vcpu}");
        }
    }
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
        let mut run = common::start(&words);
        let pid = run.id();
        // With vCPU threads, the thread is pinned where the vCPU runs, and has the CPUs of its vCPU when that sleeps.
        run.until("the vCPUs sleep on host CPU 1", || {
            let cpus = cpus_of_threads(pid, prefix);
            !cpus.is_empty() && cpus.iter().all(|cpus| cpus == "1")
        });
        common::signal_when_ready(&mut run, libc::SIGINT);
        assert_eq!(run.finish().code, 0);
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
