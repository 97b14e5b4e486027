//! Mutexes with sleeping waiters in the built-in guest on real KVM.

mod common;

use common::{assert_locks_held, number, run_baton, sum, vcpus};

/// Runs mutexes for which one task or several tasks of each vCPU contend, with and without hints, and checks
/// that no acquisition is lost, every sleeper is woken, and each charge belongs to a vCPU that ran.
fn mutexes_hold(name: &str, flags: &[&str]) {
    let guest = |hints, tasks| {
        format!(
            "[[guest]]\nname = \"{hints}-{tasks}\"\ncpus = 4\n\
             cmdline = \"lock=mutex hints={hints} tasks={tasks} acquisitions=1000\"\n"
        )
    };
    let all = ["on", "off"].map(|hints| guest(hints, 1) + &guest(hints, 3));
    let (code, summary) = run_baton(name, &all.concat(), flags);
    assert_eq!(code, 0, "{summary}");
    assert_locks_held(&summary, 4_000);
}

#[test]
fn mutexes_hold_when_executors_run_vcpus_themselves() {
    mutexes_hold("mutex-direct.toml", &["--vcpu-threads", "off"]);
}

#[test]
fn mutexes_hold_when_vcpus_have_threads() {
    mutexes_hold("mutex-threads.toml", &["--vcpu-threads", "on"]);
}

#[test]
fn mutexes_hold_when_halted_vcpus_sleep_in_kvm() {
    let (code, summary) = run_baton(
        "mutex-halt.toml",
        "[[guest]]\nname = \"halts\"\ncpus = 4\n\
         cmdline = \"lock=mutex idle=hlt hints=on acquisitions=300\"\n",
        &[],
    );
    assert_eq!(code, 0, "{summary}");
    assert_eq!(
        summary["guests"][0]["workload"]["counter_ok"], true,
        "{summary}"
    );
}

/// An acquisition that is not atomic goes wrong once in some ten thousand.
#[test]
fn a_mutex_holds_through_very_many_acquisitions_on_two_cpus() {
    let (code, summary) = run_baton(
        "mutex-often.toml",
        "[[guest]]\nname = \"often\"\ncpus = 2\n\
         cmdline = \"lock=mutex hints=off acquisitions=200000\"\n",
        &[],
    );
    assert_eq!(code, 0, "{summary}");
    assert_locks_held(&summary, 400_000);
}

/// If the mutex were handed over in strict order, nearly every acquisition would cost a sleep and a switch.
#[test]
fn waiters_for_short_critical_sections_form_no_convoy() {
    for hints in ["on", "off"] {
        let guest = format!(
            "[[guest]]\nname = \"crowd\"\ncpus = 8\n\
             cmdline = \"lock=mutex hints={hints} acquisitions=5000\"\n"
        );
        let (code, summary) = run_baton("convoy.toml", &guest, &["--host-cpus", "0-1"]);
        assert_eq!(code, 0, "{summary}");
        assert_locks_held(&summary, 40_000);
        let switches = sum(&summary["guests"][0], "switches");
        assert!(switches < 40_000 / 4, "{switches} switches: {summary}");
    }
}

#[test]
fn tasks_that_wait_for_conditions_lose_no_signal() {
    let (code, summary) = run_baton(
        "conditions.toml",
        r#"
        [[guest]]
        name = "pairs"
        cpus = 4
        cmdline = "workload=queue tasks=2 acquisitions=500 hints=on"
        [[guest]]
        name = "unhinted"
        cpus = 2
        cmdline = "workload=queue tasks=4 acquisitions=500"
        "#,
        &[],
    );
    assert_eq!(code, 0, "{summary}");
}

/// vCPU 0 holds the first mutex for 10 ms of CPU time; its own budget is a tenth of that. vCPU 1 waits for vCPU
/// 0, and its budget is too small as well. The rest is charged to vCPU 2, which waits for vCPU 1.
const CHAIN: &str = r#"
    [[guest]]
    name = "chain"
    cpus = 4
    cmdline = "workload=chain hold=10ms outside=100us seconds=1 hints=on"
    vcpu_reservations = ["1ms/100ms,hard", "2ms/20ms,hard", "5ms/20ms,hard", "5ms/20ms,hard"]
"#;

#[test]
fn sleepers_along_a_chain_of_mutexes_carry_the_throttled_holder_at_its_end() {
    let (code, summary) = run_baton("chain.toml", CHAIN, &["--proxy", "on"]);
    assert_eq!(code, 0, "{summary}");
    let guest = &summary["guests"][0];
    assert_eq!(guest["workload"]["counter_ok"], true, "{summary}");
    let holder = &guest["vcpus"][0];
    assert!(number(holder, "received_ns") > 0, "{summary}");
    assert!(number(holder, "longest_chain") >= 2, "{summary}");
    assert!(
        number(holder, "ran_ns") > number(holder, "charged_ns"),
        "it ran for longer than its own budget paid for: {summary}"
    );
    let donors = vcpus(guest).skip(1);
    let donors = donors.filter(|vcpu| number(vcpu, "donated_ns") > 0).count();
    assert!(donors >= 2, "more than one paid: {summary}");
}

#[test]
fn without_proxying_a_chain_of_mutexes_still_ends_and_nobody_pays_for_another() {
    let (code, summary) = run_baton("chain-alone.toml", CHAIN, &["--proxy", "off"]);
    assert_eq!(code, 0, "{summary}");
    let guest = &summary["guests"][0];
    assert_eq!(guest["workload"]["counter_ok"], true, "{summary}");
    assert_eq!(
        (sum(guest, "proxied"), sum(guest, "donated_ns")),
        (0, 0),
        "{summary}"
    );
}

#[test]
fn deadlocked_guest_costs_nothing_until_the_run_ends_it() {
    for threads in ["off", "on"] {
        let (_, summary) = run_baton(
            "deadlock.toml",
            r#"
            duration = "1s"
            [[guest]]
            name = "embrace"
            cpus = 3
            cmdline = "workload=deadlock hints=on"
            "#,
            &["--vcpu-threads", threads],
        );
        let guest = &summary["guests"][0];
        assert_eq!(guest["end"], "stopped when the run ended", "{summary}");
        let elapsed = number(&summary, "elapsed_ns");
        assert!(
            sum(guest, "charged_ns") < elapsed / 2,
            "two that wait burn nothing: {summary}"
        );
    }
}
