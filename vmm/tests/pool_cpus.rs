//! Host CPUs that a run loses and gets back while its guests run. Only this process loses them: by the
//! affinity of its threads, as with `taskset -a -p`, and by the cpuset of a cgroup.

mod common;
#[path = "pool_cpus/cpuset.rs"]
mod cpuset;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{Ran, Running, number};
use cpuset::Cpuset;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two host CPUs that this process may use. If there is only one, prints a sentence and returns `None`.
fn two_cpus() -> Option<[usize; 2]> {
    let status = fs::read_to_string("/proc/self/status").expect("own status");
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("affinity");
    let cpus = list(own);
    match cpus[..] {
        [first, second, ..] => Some([first, second]),
        _ => {
            eprintln!("skipped: a host CPU cannot go away where there is only one");
            None
        }
    }
}

/// The numbers of a list such as `0-2,5`.
fn list(text: &str) -> Vec<usize> {
    let number = |text: &str| text.trim().parse::<usize>().expect("a number");
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => number(from)..=number(to),
        None => number(part)..=number(part),
    };
    text.split(',').flat_map(part).collect()
}

/// A run without an end, with its control socket.
struct Run {
    child: Running,
    socket: PathBuf,
}

impl Run {
    fn start(name: &str, text: &str, cpus: &[usize], flags: &[&str]) -> Self {
        let id = std::process::id();
        let socket = std::env::temp_dir().join(format!("baton-{id}-{name}.sock"));
        let config = common::file(&format!("pool-cpus-{name}.toml"), text.as_bytes());
        let (config, control) = (config.to_string_lossy(), socket.to_string_lossy());
        let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
        let cpus = cpus.join(",");
        let mut words = vec!["run", &*config, "--summary", "json"];
        words.extend(["--host-cpus", &cpus, "--control", &control]);
        words.extend(flags);
        let mut run = Self {
            child: common::start(&words),
            socket,
        };
        let begun = |now: &Value| vcpus(now).iter().all(|vcpu| number(vcpu, "ran_ns") > 0);
        run.until("it runs", begun);
        run
    }

    fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// A snapshot of the run; `None` before its control socket accepts connections.
    fn snapshot(&mut self) -> Option<Value> {
        self.child.assert_alive("a snapshot is taken");
        let mut socket = UnixStream::connect(&self.socket).ok()?;
        socket
            .write_all(b"GET /snapshot HTTP/1.1\r\nHost: baton\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// Waits until a snapshot is as `is_so` requires, and returns it.
    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.snapshot();
            if let Some(now) = now.as_ref().filter(|now| is_so(now)) {
                return now.clone();
            }
            assert!(Instant::now() < until, "{what}: {now:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until the host CPU with this index in the pool is away, or not.
    fn until_away(&mut self, index: usize, away: bool) -> Value {
        self.until("away", |now| now["cpus"][index]["away"] == away)
    }

    /// Waits until each vCPU has run more than it has in `before`.
    fn until_all_have_run(&mut self, before: &Value) {
        let ran = |now: &Value| -> Vec<u64> {
            vcpus(now)
                .iter()
                .map(|vcpu| number(vcpu, "ran_ns"))
                .collect()
        };
        let before = ran(before);
        self.until("all go on", |now| {
            ran(now)
                .iter()
                .zip(&before)
                .all(|(now, before)| now > before)
        });
    }

    /// The threads of the run: their names, and the host CPUs on which they may run.
    fn threads(&self) -> Vec<(String, Vec<usize>)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it lives");
        let thread = |task: PathBuf| {
            let status = fs::read_to_string(task.join("status")).ok()?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
            let cpus = field("Cpus_allowed_list:").map(list)?;
            Some((field("Name:")?.trim().to_owned(), cpus))
        };
        tasks.filter_map(|task| thread(task.ok()?.path())).collect()
    }

    /// Pins all threads to `cpus`, as `taskset -a -p` does.
    fn pin(&self, cpus: &[usize]) {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it lives");
        for task in tasks {
            let name = task.expect("a thread").file_name();
            let tid: i32 = name.to_string_lossy().parse().expect("a number");
            // SAFETY: an all-zero set is valid, the numbers are those of CPUs that this process may
            // use and below its size, and the kernel reads it.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                cpus.iter().for_each(|cpu| libc::CPU_SET(*cpu, &mut set));
                // A thread that has ended meanwhile needs no affinity.
                libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &raw const set);
            }
        }
    }

    /// Waits until each thread with such a name is pinned to one CPU of `to`.
    fn until_pinned(&self, is: impl Fn(&str) -> bool, to: &[usize]) {
        let until = Instant::now() + PATIENCE;
        let pinned = |cpus: &[usize]| matches!(cpus, [one] if to.contains(one));
        loop {
            let threads = self.threads();
            let mut those = threads.iter().filter(|(name, _)| is(name)).peekable();
            assert!(those.peek().is_some(), "{threads:?}");
            if those.all(|(_, cpus)| pinned(cpus)) {
                return;
            }
            assert!(Instant::now() < until, "{threads:?}");
            std::thread::yield_now();
        }
    }

    fn end(self) -> Ran {
        self.child.signal(libc::SIGTERM);
        self.child.finish()
    }
}

fn vcpus(now: &Value) -> &[Value] {
    now["vcpus"].as_array().map_or(&[], |vcpus| vcpus)
}

/// The line of standard error with these words.
fn line<'a>(ran: &'a Ran, words: &[&str]) -> &'a str {
    let all = |line: &&str| words.iter().all(|word| line.contains(word));
    let found = ran.stderr.lines().find(all);
    found.unwrap_or_else(|| panic!("{words:?} in {}", ran.stderr))
}

const TWO_GUESTS: &str = r#"
    [[guest]]
    name = "first"
    cmdline = "workload=hog seconds=0"
    reservation = "8ms/10ms"

    [[guest]]
    name = "second"
    cmdline = "workload=hog seconds=0"
    reservation = "8ms/10ms"
"#;

#[test]
fn a_host_cpu_that_goes_away_is_told_and_the_first_guest_keeps_its_reservation_until_it_is_back() {
    let Some(cpus) = two_cpus() else { return };
    for threads in ["off", "on"] {
        let name = format!("two-{threads}");
        let mut run = Run::start(&name, TWO_GUESTS, &cpus, &["--vcpu-threads", threads]);
        run.pin(&cpus[..1]);
        let now = run.until_away(1, true);
        let [first, second] = vcpus(&now) else {
            panic!("{now}");
        };
        assert_eq!(
            (&first["reduced_to"], &second["reservation"]),
            (&Value::Null, &"8ms/10ms,hard".into())
        );
        assert!(second["reduced_to"].is_string(), "{second}");
        run.until_all_have_run(&now);

        run.pin(&cpus);
        let now = run.until_away(1, false);
        assert!(
            vcpus(&now).iter().all(|v| v["reduced_to"].is_null()),
            "{now}"
        );
        run.until_pinned(|name| name.starts_with("executor/"), &cpus);
        run.until_pinned(|name| name == format!("executor/{}", cpus[1]), &cpus[1..]);
        if threads == "on" {
            run.until_pinned(|name| name.starts_with("0:"), &cpus);
        }
        run.until_all_have_run(&now);

        let ran = run.end();
        let (gone, left) = (cpus[1].to_string(), cpus[0].to_string());
        line(
            &ran,
            &[
                "baton: host CPU",
                &gone,
                "affinity",
                "goes on with host CPU",
                &left,
            ],
        );
        line(
            &ran,
            &["baton: guest second cannot keep its reservations", "23.7 %"],
        );
        line(&ran, &["is back: the pool has host CPUs"]);
        line(&ran, &["baton: all reservations are kept"]);
        assert!(!ran.stderr.contains("guest first"), "{}", ran.stderr);
        let summary = ran.summary();
        assert!(number(&summary["executors"][1], "away_ns") > 0, "{summary}");
        assert_eq!(number(&summary["executors"][0], "away_ns"), 0);
        let reduced = |guest: usize| common::sum(&summary["guests"][guest], "reduced_ns");
        assert!(reduced(0) == 0 && reduced(1) > 0, "{summary}");
    }
}

#[test]
fn vcpus_that_run_halt_or_are_pinned_go_on_when_the_cpuset_loses_a_cpu_and_go_home_afterwards() {
    let Some(cpus) = two_cpus() else { return };
    let guests = format!(
        r#"
        [[guest]]
        name = "pinned"
        cmdline = "workload=hog seconds=0"
        host_cpus = "{}"

        [[guest]]
        name = "locks"
        cpus = 2
        cmdline = "lock=ticket hold=2us outside=2us seconds=0 hints=on"

        [[guest]]
        name = "halts"
        cpus = 2
        cmdline = "workload=halt count=100000000 period=1ms"
        "#,
        cpus[1]
    );
    for threads in ["off", "on"] {
        let Some(cpuset) = Cpuset::new(
            &format!("baton-test-{}-{threads}", std::process::id()),
            &cpus,
        ) else {
            return;
        };
        let name = format!("cpuset-{threads}");
        let mut run = Run::start(&name, &guests, &cpus, &["--vcpu-threads", threads]);
        cpuset.enter(run.pid());
        cpuset.set(&cpus[..1]);
        let now = run.until_away(1, true);
        assert_eq!(now["vcpus"][0]["displaced"], true, "{now}");
        run.until_all_have_run(&now);

        cpuset.set(&cpus);
        let now = run.until_away(1, false);
        assert_eq!(now["vcpus"][0]["displaced"], false, "{now}");
        run.until_all_have_run(&now);
        run.until("it is home", |now| now["vcpus"][0]["cpu"] == cpus[1]);
        run.until_pinned(|name| name == format!("executor/{}", cpus[1]), &cpus[1..]);

        let ran = run.end();
        line(
            &ran,
            &["baton: guest pinned: vCPU 0 is pinned to host CPUs that are away"],
        );
        line(&ran, &["is back: the pool has host CPUs"]);
    }
}

#[test]
fn a_pool_whose_last_host_cpu_goes_away_runs_on_and_says_what_that_is_worth() {
    let Some(cpus) = two_cpus() else { return };
    let guest = r#"
        [[guest]]
        cmdline = "workload=hog seconds=0"
        reservation = "5ms/10ms"
    "#;
    let mut run = Run::start("last", guest, &cpus[1..], &[]);
    let before = run.snapshot().expect("it runs");
    run.pin(&cpus[..1]);
    run.until_all_have_run(&before);
    let now = run.until_away(0, true);
    run.until_all_have_run(&now);
    run.pin(&cpus);
    run.until_away(0, false);
    let ran = run.end();
    line(
        &ran,
        &[
            "no CPU of the pool is left",
            "no reservation can be relied on",
        ],
    );
    line(&ran, &["is back: the pool has host CPU"]);
}
