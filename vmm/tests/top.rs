//! `baton top` against a running instance: as text, as JSON, and in a pseudo-terminal.

#[path = "common/mod.rs"]
mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use baton::control::snapshot::State;
use baton::top::client;
use terminal::{PATIENCE, Terminal};

/// A run that goes on until it is dropped.
struct Instance {
    child: Child,
    socket: PathBuf,
}

impl Instance {
    /// Runs `baton run` with `args`, and waits until it answers at `socket`.
    fn start_at(socket: impl FnOnce(u32) -> PathBuf, args: &[&str]) -> Self {
        let child = run(args);
        let socket = socket(child.id());
        let mut instance = Self { child, socket };
        let until = Instant::now() + PATIENCE;
        while client::snapshot(&instance.socket).is_err() {
            let ended = instance.child.try_wait().expect("child");
            assert_eq!(ended, None, "the run has ended");
            assert!(
                Instant::now() < until,
                "{} is mute",
                instance.socket.display()
            );
            std::thread::yield_now();
        }
        instance
    }

    /// The same at a socket of its own.
    fn start(name: &str, args: &[&str]) -> Self {
        let socket = std::env::temp_dir().join(format!("baton-{}-{name}.sock", std::process::id()));
        let control = socket.to_str().expect("utf-8").to_owned();
        Self::start_at(|_| socket, &[args, &["--control", &control]].concat())
    }

    fn signal(&mut self, signal: libc::c_int) -> ExitStatus {
        kill(&self.child, signal);
        self.child.wait().expect("ends")
    }

    fn top(&self, args: &[&str]) -> common::Ran {
        let socket = self.socket.to_str().expect("utf-8");
        common::baton(&[&["top", "--socket", socket], args].concat())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(libc::SIGTERM);
        }
    }
}

/// Two guests without end.
const GUESTS: &str = "
[[guest]]
name = 'database'
cpus = 2
cmdline = 'lock=ticket seconds=0 hints=on'
reservation = '5ms/20ms'
[[guest]]
name = 'batch'
cmdline = 'lock=ticket seconds=0 hints=on'
weight = 50
";

/// A holder with little time of its own, and a waiter with plenty: most of what runs is proxied.
const THROTTLED_HOLDER: &str = "
[[guest]]
cpus = 2
cmdline = 'workload=throttled-holder hold=2ms outside=1ms seconds=100 hints=on'
vcpu_reservations = ['1ms/100ms,hard', '5ms/10ms,hard']
";

/// A file with guests, for as long as it lives.
struct Guests(PathBuf);

impl Guests {
    fn write(name: &str) -> Self {
        Self::write_text(name, GUESTS)
    }

    fn write_text(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("baton-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("writes");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("utf-8")
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_baton"))
        .arg("run")
        .args(args)
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("baton starts")
}

fn kill(child: &Child, signal: libc::c_int) {
    // SAFETY: no memory is involved; the child has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Where [`run`] offers the socket of process `pid` by itself.
fn default_socket(pid: u32) -> PathBuf {
    // SAFETY: takes nothing, changes nothing and cannot fail.
    let directory = match unsafe { libc::geteuid() } {
        0 => PathBuf::from("/run/baton"),
        _ => std::env::temp_dir().join("baton"),
    };
    directory.join(format!("{pid}.sock"))
}

/// `baton top` for process `pid`, which [`run`] started.
fn top_of(pid: u32) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["top", "--once", "--interval", "20ms", &pid.to_string()])
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .output()
        .expect("baton runs")
}

#[test]
fn once_prints_a_line_for_each_host_cpu_and_vcpu_and_the_socket_goes_with_the_run() {
    let guests = Guests::write("once");
    let mut instance = Instance::start("once", &[guests.path()]);
    let ran = instance.top(&["--once", "--interval", "50ms"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in [
        "2 guests, 3 vCPUs",
        "% busy",
        "database/1",
        "batch/0",
        "5ms/20ms",
        "weight=50",
    ] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    instance.signal(libc::SIGTERM);
    assert!(!instance.socket.exists());
    let gone = instance.top(&["--once"]);
    assert_eq!(gone.code, 1);
    assert!(
        gone.stderr.contains("cannot ask the run"),
        "{}",
        gone.stderr
    );
}

#[test]
fn json_has_the_documented_form_and_its_sums_agree() {
    let guests = Guests::write("json");
    let instance = Instance::start("json", &[guests.path()]);
    let ran = instance.top(&["--once", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let snapshot: serde_json::Value = serde_json::from_str(&ran.stdout).expect("json");
    assert_eq!(snapshot["version"], 1);
    assert_eq!(snapshot["pid"], instance.child.id());
    assert_eq!(snapshot["policy"]["slice_ns"], 4_000_000);
    assert_eq!(snapshot["guests"][1]["name"], "batch");
    assert_eq!(snapshot["guests"][1]["weight"], 50);
    let vcpus = snapshot["vcpus"].as_array().expect("vcpus");
    assert_eq!(vcpus.len(), 3);
    let sum = |key: &str| -> u64 { vcpus.iter().map(|v| v[key].as_u64().expect(key)).sum() };
    assert_eq!(sum("ran_ns"), sum("charged_ns"));
    assert_eq!(sum("donated_ns"), sum("received_ns"));
}

#[test]
fn a_snapshot_shows_a_holder_on_its_waiters_budget() {
    let guests = Guests::write_text("proxied", THROTTLED_HOLDER);
    let instance = Instance::start("proxied", &[guests.path()]);
    let until = Instant::now() + PATIENCE;
    let (snapshot, cpu) = loop {
        assert!(Instant::now() < until, "nothing was proxied");
        let snapshot = client::snapshot(&instance.socket).expect("answers");
        let proxied = |cpu: &&_| is_proxied(cpu);
        if let Some(cpu) = snapshot.cpus.iter().find(proxied).cloned() {
            break (snapshot, cpu);
        }
    };
    let vcpu = |name: &Option<String>| {
        let named = |vcpu: &&_| Some(baton::control::snapshot::Vcpu::name(vcpu)) == *name;
        snapshot.vcpus.iter().find(named).expect("a vCPU")
    };
    let (run, donor) = (vcpu(&cpu.run), vcpu(&cpu.donor));
    assert_eq!((run.state, donor.state), (State::Running, State::Carrying));
    assert_eq!((run.cpu, donor.cpu), (Some(cpu.cpu), Some(cpu.cpu)));
    assert_eq!((&donor.waits_for, donor.waits_lock), (&cpu.run, cpu.lock));
}

fn is_proxied(cpu: &baton::control::snapshot::Cpu) -> bool {
    cpu.run.is_some() && cpu.run != cpu.donor
}

#[test]
fn a_run_is_found_by_its_process_and_what_a_killed_one_left_is_removed() {
    let cmdline = ["--cmdline", "lock=ticket seconds=0"];
    let mut instance = Instance::start_at(default_socket, &cmdline);
    let pid = instance.child.id();
    let found = top_of(pid);
    assert!(found.status.success());
    let text = String::from_utf8_lossy(&found.stdout);
    assert!(text.starts_with(&format!("baton {pid} ")), "{text}");

    instance.signal(libc::SIGKILL);
    assert!(instance.socket.exists(), "nobody was there to remove it");
    let gone = top_of(pid);
    assert_eq!(gone.status.code(), Some(1));
    let text = String::from_utf8_lossy(&gone.stderr);
    assert!(text.contains("offers no control socket"), "{text}");
    assert!(!instance.socket.exists());
}

#[test]
fn a_run_under_the_hosts_scheduler_has_nothing_to_show_and_top_says_why() {
    let mut child = run(&["--sched", "host", "--cmdline", "lock=ticket seconds=0"]);
    let shown = top_of(child.id());
    kill(&child, libc::SIGKILL);
    child.wait().expect("ends");
    assert_eq!(shown.status.code(), Some(1));
    let text = String::from_utf8_lossy(&shown.stderr);
    assert!(text.contains("under --sched host"), "{text}");
}

#[test]
fn without_a_terminal_top_names_the_way_to_plain_text() {
    let ran = common::baton(&["top", "--socket", "/nonexistent/baton.sock"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("--once"), "{}", ran.stderr);
}

fn view(terminal: &Terminal, socket: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command
        .args(["top", "--interval", "20ms", "--socket"])
        .arg(socket);
    terminal.start(&mut command)
}

#[test]
fn the_view_draws_filters_groups_and_quits_with_the_terminal_as_it_was() {
    let guests = Guests::write("view");
    let instance = Instance::start("view", &[guests.path()]);
    let mut terminal = Terminal::new();
    let before = terminal.modes();
    let mut view = view(&terminal, &instance.socket);
    terminal.shows(&["database/0", "batch/0", "CPU 0", "q quit"], &[]);
    assert_ne!(terminal.modes(), before, "the view takes single keys");

    terminal.types("/bat");
    terminal.shows(&["guest: bat_", "batch/0"], &["database/0"]);
    terminal.types("\r");
    terminal.shows(&["guests with 'bat'", "q quit"], &["database/0"]);
    terminal.types("/\r");
    terminal.shows(&["database/0", "batch/0"], &["guests with"]);
    terminal.types("g");
    terminal.shows(&["database[2]", "batch[1]"], &["database/0"]);
    terminal.types("?");
    terminal.shows(&["reverse the order"], &[]);
    // The first closes the help.
    terminal.types("qq");

    assert_eq!(terminal.wait(&mut view).code(), Some(0));
    assert_eq!(terminal.modes(), before);
    assert!(terminal.is_as_it_was());
}

#[test]
fn a_view_that_is_told_to_end_leaves_the_terminal_as_it_was() {
    let guests = Guests::write("term");
    let instance = Instance::start("term", &[guests.path()]);
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let mut terminal = Terminal::new();
        let before = terminal.modes();
        let mut view = view(&terminal, &instance.socket);
        terminal.shows(&["database/0"], &[]);
        kill(&view, signal);
        assert_eq!(terminal.wait(&mut view).code(), Some(0), "signal {signal}");
        assert_eq!(terminal.modes(), before, "signal {signal}");
        assert!(terminal.is_as_it_was(), "signal {signal}");
    }
}

#[test]
fn when_the_run_ends_the_view_says_so_and_ends_unless_it_is_paused() {
    let guests = Guests::write("ends");
    let mut instance = Instance::start("ends", &[guests.path()]);
    let (mut going, mut still) = (Terminal::new(), Terminal::new());
    let mut paused = view(&still, &instance.socket);
    still.shows(&["database/0"], &[]);
    still.types("p");
    still.shows(&["PAUSED"], &[]);
    let mut view = view(&going, &instance.socket);
    going.shows(&["database/0"], &[]);

    instance.signal(libc::SIGTERM);
    assert_eq!(going.wait(&mut view).code(), Some(0));
    assert!(going.is_as_it_was());
    going.shows(&["the run has ended"], &[]);

    still.shows(&["THE RUN HAS ENDED", "database/0"], &[]);
    still.types("q");
    assert_eq!(still.wait(&mut paused).code(), Some(0));
}
