//! Executors before ordinary programs.

mod common;

use std::fs;

use common::{FAILED, Running, file, first_cpu, start};

const SCHED_OTHER: u32 = 0;
const SCHED_FIFO: u32 = 1;

/// The name, the policy and the real-time priority of each thread of a process.
fn threads(pid: i32) -> Vec<(String, u32, u32)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let thread = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        // Field 40 is the priority and 41 the policy; the second is the name, which may have blanks.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some((name.trim().to_owned(), field(41)?, field(40)?))
    };
    tasks.flatten().filter_map(thread).collect()
}

/// A run of one guest with a reservation that leaves the tests beside it time, until it has a thread whose name
/// begins with `last`. `None` if this user may not have a priority, which the run reports.
fn run_with_priority(flags: &[&str], last: &str) -> Option<Running> {
    let cpu = first_cpu();
    let mut arguments = vec!["run", "--host-cpus", &cpu, "--executor-priority", "3"];
    arguments.extend(["--reservation", "1ms/10ms,hard", "--cmdline", "seconds=600"]);
    arguments.extend(flags);
    if rustix::process::getrlimit(rustix::process::Resource::Rtprio).current == Some(0)
        && !rustix::process::geteuid().is_root()
    {
        let refused = start(&arguments).finish();
        assert!(
            refused.one_sentence().contains("CAP_SYS_NICE"),
            "{refused:?}"
        );
        return None;
    }
    let mut run = start(&arguments);
    let pid = run.pid();
    let is_there = || threads(pid).iter().any(|(name, ..)| name.starts_with(last));
    run.until("its threads have started", is_there);
    Some(run)
}

#[test]
fn executors_are_before_ordinary_programs_and_threads_of_halted_vcpus_before_executors() {
    // The watcher of host CPUs starts last.
    let Some(run) = run_with_priority(&[], "host-cpus") else {
        return;
    };
    for (name, policy, priority) in threads(run.pid()) {
        let expected = match &*name {
            "host-cpus" | "control" | "metrics" => continue,
            name if name.starts_with("executor/") => (SCHED_FIFO, 3),
            name if name.starts_with("halt") => (SCHED_FIFO, 4),
            _ => (SCHED_OTHER, 0),
        };
        assert_eq!((policy, priority), expected, "{name}");
    }
}

#[test]
fn a_vcpus_own_thread_has_the_priority_of_executors_while_the_vcpu_runs() {
    let Some(run) = run_with_priority(&["--vcpu-threads", "on"], "host-cpus") else {
        return;
    };
    let found = threads(run.pid());
    let of = |prefix: &str| {
        let thread = found.iter().find(|(name, ..)| name.starts_with(prefix));
        thread.map(|&(_, policy, priority)| (policy, priority))
    };
    assert_eq!(of("executor/"), Some((SCHED_FIFO, 3)), "{found:?}");
    assert_eq!(of("0:guest"), Some((SCHED_FIFO, 3)), "{found:?}");
}

#[test]
fn without_the_flag_all_threads_are_ordinary_and_bad_priorities_are_refused() {
    let cpu = first_cpu();
    let mut run = start(&["run", "--host-cpus", &cpu, "--cmdline", "seconds=600"]);
    let pid = run.pid();
    run.until("its threads have started", || {
        threads(pid).iter().any(|(name, ..)| name == "host-cpus")
    });
    assert!(
        threads(pid)
            .iter()
            .all(|&(_, policy, _)| policy == SCHED_OTHER)
    );
    drop(run);
    let config = file(
        "bad_priority.toml",
        b"executor_priority = \"99\"\n[[guest]]\n",
    );
    let refused = start(&["run", &config.to_string_lossy()]).finish();
    assert_eq!(refused.code, FAILED);
    assert!(
        refused.one_sentence().contains("from 1 to 48"),
        "{refused:?}"
    );
    let host = start(&["run", "--sched", "host", "--executor-priority", "1"]).finish();
    assert!(
        host.one_sentence().contains("there are no executors"),
        "{host:?}"
    );
}
