//! What a user does with guests of a pool (`docs/service.md`).

use std::fs;
use std::io::Write as _;

use baton_api::{EventKind, GuestOrder};
use serde_json::Value;

use super::events::Events;
use super::pool::ServicePool;
use crate::common::Ran;
use crate::common::echo::kernel;
use crate::common::session::Session;

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
