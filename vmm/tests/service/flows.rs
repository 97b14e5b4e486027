//! What a user does with guests of a pool (`docs/service.md`).

use std::fs;
use std::io::Write as _;

use baton_api::{EventKind, GuestOrder};
use serde_json::Value;

use super::events::Events;
use super::pool::ServicePool;
use crate::common::echo::kernel;
use crate::common::session::Session;
use crate::common::{self, Ran, Running};

/// Runs a command, which must succeed.
fn run(pool: &ServicePool, words: &[&str]) -> Ran {
    let ran = pool.place().run(words);
    assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
    ran
}

/// The guest `name` as `baton show` has it.
fn show(pool: &ServicePool, name: &str) -> Value {
    let ran = run(pool, &["show", name, "--json"]);
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// Guests that `baton start` has started, which would outlive a test that fails.
struct Started<'a>(&'a ServicePool);

impl Started<'_> {
    fn start(&self, name: &str, text: &str) {
        let path = self.0.place().path(&format!("{name}.toml"));
        let text = format!("[[guest]]\nname = \"{name}\"\n{text}\n");
        fs::write(&path, text).expect("a file");
        run(self.0, &["start", &path.to_string_lossy()]);
        assert_eq!(show(self.0, name)["state"], "running");
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        for guest in self.0.guests() {
            let _ = self.0.client().kill(&guest.name);
        }
    }
}

#[test]
fn guests_are_started_changed_paused_stopped_and_killed_and_the_events_are_in_order() {
    let pool = ServicePool::start("flows");
    let started = Started(&pool);
    started.start("web", "cmdline = \"workload=hog seconds=0\"");
    let events = Events::follow(&pool, "web");
    started.start(
        "db",
        "cmdline = \"workload=hog seconds=0\"\nreservation = \"3ms/10ms,hard\"",
    );
    run(
        &pool,
        &["set", "web", "--vcpu", "0", "--reservation", "2ms/10ms"],
    );
    assert_eq!(
        show(&pool, "web")["vcpus"][0]["reservation"],
        "2ms/10ms,hard"
    );
    let refused = pool
        .place()
        .run(&["set", "db", "--reservation", "9ms/10ms"]);
    assert!(refused.one_sentence().contains("fit"), "{refused:?}");
    run(
        &pool,
        &["set", "web", "--reservation", "none", "--weight", "30"],
    );
    assert_eq!(show(&pool, "web")["vcpus"][0]["weight"], 30);
    run(&pool, &["pause", "web"]);
    let paused = show(&pool, "web");
    assert_eq!(paused["state"], "paused");
    assert_eq!(
        show(&pool, "web")["vcpus"][0]["ran_ns"],
        paused["vcpus"][0]["ran_ns"]
    );
    run(&pool, &["resume", "web"]);
    pool.until("it runs again", |pool| {
        let ran = &show(pool, "web")["vcpus"][0]["ran_ns"];
        (*ran != paused["vcpus"][0]["ran_ns"]).then_some(())
    });
    // The guest has no power button.
    run(&pool, &["stop", "web", "--timeout", "200ms"]);
    pool.until_listed(&["db"]);
    run(&pool, &["kill", "db"]);
    pool.until_listed(&[]);

    let follows = pool.until("both ends are reported", |_| {
        let seen = events.seen();
        let ends = seen
            .iter()
            .filter(|event| matches!(event, EventKind::Ended { .. }));
        (ends.count() == 2).then(|| in_short(&seen))
    });
    let expected = [
        "db joined",
        "web changed",
        "web changed",
        "web paused",
        "web resumed",
        "web PowerButton",
        "web PowerOff",
        "web ended true",
        "db Kill",
        "db ended false",
    ];
    // The first changes were made until the events came.
    let from = follows.iter().position(|event| *event == expected[0]);
    assert_eq!(follows[from.expect("db has joined")..], expected);
    let log = fs::read_to_string(pool.place().path("baton/web.log")).expect("a log");
    assert!(log.contains("no power button"), "{log}");
}

fn in_short(events: &[EventKind]) -> Vec<String> {
    let short = |event: &EventKind| match event {
        EventKind::Joined { guest, .. } => format!("{guest} joined"),
        EventKind::Ended { guest, ok, .. } => format!("{guest} ended {ok}"),
        EventKind::Restarting { guest, how, .. } => format!("{guest} restarting: {how}"),
        EventKind::Restarted { guest, restarts } => format!("{guest} restarted {restarts}"),
        EventKind::Paused { guest } => format!("{guest} paused"),
        EventKind::Resumed { guest } => format!("{guest} resumed"),
        EventKind::Changed { guest } => format!("{guest} changed"),
        EventKind::Ordered { guest, order } => order_in_short(guest, *order),
        other => format!("{other:?}"),
    };
    events.iter().map(short).collect()
}

fn order_in_short(guest: &str, order: GuestOrder) -> String {
    format!("{guest} {order:?}")
}

#[test]
fn the_console_of_a_guest_is_reached_by_its_name_also_after_a_restart_of_the_pool() {
    let mut pool = ServicePool::start("console");
    let socket = pool.place().path("echo.sock");
    let kernel = kernel("service-console");
    let console = format!("unix:{}", socket.display());
    let guest = pool.vm("echo", &["--kernel", &kernel, "--console", &console]);
    for text in ["hello", "again"] {
        pool.until_listed(&["echo"]);
        let mut session = Session::start(pool.place().command(&["console", "echo"]));
        session.until("the terminal is raw", Session::is_raw);
        session.master.write_all(text.as_bytes()).expect("typed");
        session.until("the echo is shown", |session| session.text().contains(text));
        session.master.write_all(b"\x01d").expect("typed");
        let status = session.leader.wait().expect("it ends");
        assert!(status.success(), "{}", session.text());
        pool.kill();
        pool.start_again();
    }
    pool.until_listed(&["echo"]);
    guest.power_off(&pool);
}

#[test]
fn host_cpus_come_and_go_while_guests_run() {
    let all = baton_os::sys::affinity().expect("the affinity of this process");
    let &[first, second, ..] = &all[..] else {
        eprintln!("this host has one CPU, so nothing is tested");
        return;
    };
    let pool = ServicePool::start("host-cpus");
    let started = Started(&pool);
    started.start(
        "db",
        "cpus = 2\ncmdline = \"workload=hog seconds=0\"\nreservation = \"4ms/10ms,hard\"",
    );
    let cpus = |ran: Ran| -> Vec<usize> {
        let pool: baton_api::PoolStatus = serde_json::from_str(&ran.stdout).expect("JSON");
        pool.host_cpus.iter().map(|cpu| cpu.cpu).collect()
    };
    let (first_text, second_text) = (first.to_string(), second.to_string());
    let change = |change, cpus| run(&pool, &["pool", "cpus", change, cpus, "--json"]);
    // Others of these tests may own it.
    assert_eq!(cpus(change("add", &second_text)), [first, second]);
    started.start(
        "web",
        "cpus = 2\ncmdline = \"workload=hog seconds=0\"\nreservation = \"4ms/10ms,hard\"",
    );
    let refused = pool.place().run(&["pool", "cpus", "remove", &first_text]);
    let sentence = refused.one_sentence();
    assert!(
        sentence.contains("web/0, web/1 would not fit"),
        "{sentence}"
    );
    run(&pool, &["kill", "web"]);
    // Until what it had reserved is free.
    pool.until("the host CPU is given up", |pool| {
        let removed = pool.place().run(&["pool", "cpus", "remove", &first_text]);
        (removed.code == 0).then_some(())
    });
    assert_eq!(cpus(run(&pool, &["pool", "status", "--json"])), [second]);
    let ran = |pool: &ServicePool| show(pool, "db")["vcpus"][1]["ran_ns"].as_u64();
    let before = ran(&pool);
    pool.until("its guest runs on", |pool| {
        (ran(pool) > before).then_some(())
    });
}

/// Waits until the guest `name` has had more CPU time than it has now.
fn until_it_runs(pool: &ServicePool, name: &str) {
    let before = show(pool, name)["vcpus"][0]["ran_ns"].clone();
    pool.until("it runs", |pool| {
        (show(pool, name)["vcpus"][0]["ran_ns"] != before).then_some(())
    });
}

#[test]
fn a_guest_that_is_reset_starts_again_in_its_place_with_what_it_has() {
    let pool = ServicePool::start("reboot");
    let started = Started(&pool);
    started.start("web", "cmdline = \"workload=hog seconds=0\"");
    started.start(
        "db",
        "cpus = 2\nmemory = \"16M\"\non_reboot = \"end\"\ncmdline = \"workload=hog seconds=0\"\n\
         vcpu_reservations = [\"3ms/10ms,hard\", \"\"]",
    );
    let events = Events::follow(&pool, "web");
    run(
        &pool,
        &["set", "db", "--vcpu", "0", "--reservation", "2ms/10ms"],
    );
    let before = show(&pool, "db");
    for restarts in 1..=3 {
        run(&pool, &["reboot", "db"]);
        let after = pool.until("it has started again", |pool| {
            let db = show(pool, "db");
            (db["restarts"] == restarts && db["state"] == "running").then_some(db)
        });
        assert_eq!(after["pid"], before["pid"]);
        for vcpu in [0, 1] {
            for key in ["reservation", "weight"] {
                assert_eq!(after["vcpus"][vcpu][key], before["vcpus"][vcpu][key]);
            }
        }
        assert!(after["vcpus"][0]["ran_ns"].as_u64() >= before["vcpus"][0]["ran_ns"].as_u64());
        until_it_runs(&pool, "db");
    }
    let list = run(&pool, &["list"]).stdout;
    let line = list.lines().find(|line| line.starts_with("db "));
    assert!(line.is_some_and(|line| line.ends_with(" 3")), "{list}");
    let metrics = pool.metrics();
    assert!(
        metrics.contains("baton_guest_restarts_total{guest=\"db\"} 3"),
        "{metrics}"
    );
    let db = |events: &[EventKind]| {
        let all = in_short(events).into_iter();
        let own: Vec<_> = all.filter(|event| event.starts_with("db ")).collect();
        own
    };
    let seen = pool.until("the starts are reported", |_| {
        let seen = db(&events.seen());
        seen.contains(&"db restarted 3".to_owned()).then_some(seen)
    });
    let own = |restarts| {
        [
            "db restarting: reset by request".to_owned(),
            format!("db restarted {restarts}"),
        ]
    };
    let expected: Vec<_> = (1..=3).flat_map(own).collect();
    let starts = seen.iter().filter(|event| event.contains("restart"));
    assert_eq!(
        starts.collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert!(seen.contains(&"db Reset".to_owned()), "{seen:?}");
}

#[test]
fn a_guest_whose_vcpus_idle_by_doorbells_or_halt_starts_again_too() {
    let pool = ServicePool::start("reboot-idle");
    let started = Started(&pool);
    for (name, idle) in [("rings", ""), ("halts", "idle=hlt")] {
        started.start(
            name,
            &format!("cpus = 4\ncmdline = \"lock=mutex {idle} hints=on acquisitions=1000000000\""),
        );
        for restarts in 1..=5 {
            until_it_runs(&pool, name);
            run(&pool, &["reboot", name]);
            pool.until("it has started again", |pool| {
                (show(pool, name)["restarts"] == restarts).then_some(())
            });
        }
        until_it_runs(&pool, name);
    }
}

#[test]
fn a_guest_that_was_paused_when_its_pool_died_is_paused_in_the_next_one() {
    let mut pool = ServicePool::start("paused");
    let guest = pool.vm("db", &["--cmdline", "workload=hog seconds=0"]);
    pool.until_listed(&["db"]);
    until_it_runs(&pool, "db");
    run(&pool, &["pause", "db"]);
    for _ in 0..2 {
        pool.kill();
        pool.start_again();
        pool.until_listed(&["db"]);
        let db = show(&pool, "db");
        assert_eq!(db["state"], "paused");
        // It has had nothing since it has joined.
        assert_eq!(db["vcpus"][0]["ran_ns"], 0, "{db}");
    }
    run(&pool, &["resume", "db"]);
    until_it_runs(&pool, "db");
    guest.power_off(&pool);
}

#[test]
fn the_log_of_a_guest_is_shown_also_after_its_end() {
    let pool = ServicePool::start("logs");
    let logs = |words: &[&str]| {
        let mut command = common::command(words);
        command.env("XDG_RUNTIME_DIR", pool.place().path(""));
        Running::spawn(&mut command).finish()
    };
    let missing = logs(&["logs", "web"]);
    let missing = missing.one_sentence();
    for part in ["no log of a guest web", "baton start", "journalctl"] {
        assert!(missing.contains(part), "{missing}");
    }
    let started = Started(&pool);
    started.start("web", "cmdline = \"workload=hog seconds=0\"");
    run(&pool, &["stop", "web", "--timeout", "200ms"]);
    pool.until_listed(&[]);
    let shown = pool.until("the summary is in the log", |_| {
        let shown = logs(&["logs", "web"]);
        shown.stdout.contains("guest web").then_some(shown)
    });
    assert!(shown.stdout.contains("no power button"), "{shown:?}");
    pool.until("the last line is that of the log", |_| {
        let last = logs(&["logs", "web", "--lines", "1"]).stdout;
        assert_eq!(last.lines().count(), 1, "{last}");
        let all = logs(&["logs", "web", "--lines", "1000"]).stdout;
        all.ends_with(&last).then_some(())
    });
}
