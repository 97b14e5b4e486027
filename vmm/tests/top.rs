//! `baton top` against a running instance: as text, as JSON, and in a pseudo-terminal.

#[path = "common/mod.rs"]
mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::Running;

/// A run without an end, with its control socket.
struct Instance {
    run: Running,
    socket: PathBuf,
}

impl Instance {
    fn start(name: &str) -> Self {
        let words = ["--cmdline", "lock=ticket seconds=0 hints=on"];
        Self::start_with(name, &[&words[..], &["--reservation", "5ms/20ms"]].concat())
    }

    /// The same of three vCPUs with these flags.
    fn start_with(name: &str, more: &[&str]) -> Self {
        let socket = std::env::temp_dir().join(format!("baton-{}-{name}.sock", std::process::id()));
        let control = socket.to_string_lossy();
        let mut words = vec!["run", "--cpus", "3"];
        words.extend(more);
        words.extend(["--control", &control]);
        let mut run = common::start(&words);
        run.until("the control socket accepts connections", || {
            UnixStream::connect(&socket).is_ok()
        });
        Self { run, socket }
    }
}

fn once(socket: &Path, more: &[&str]) -> common::Ran {
    let socket = socket.to_str().expect("utf-8");
    common::baton(&[&["top", "--once", "--socket", socket], more].concat())
}

#[test]
fn once_prints_every_vcpu_with_its_reservation_and_the_socket_goes_with_the_run() {
    let instance = Instance::start("once");
    let ran = once(&instance.socket, &["--interval", "50ms"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in ["guest/0", "guest/2", "of 5ms/20ms", "CPU 0"] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
    let Instance { run, socket } = instance;
    run.signal(libc::SIGTERM);
    assert_eq!(run.finish().code, 0);
    assert!(!socket.exists());
    let gone = once(&socket, &[]);
    assert_ne!(gone.code, 0);
    assert!(
        gone.stderr.contains("cannot ask the instance"),
        "{}",
        gone.stderr
    );
}

#[test]
fn json_has_the_documented_form_and_its_sums_agree() {
    let instance = Instance::start("json");
    let ran = once(&instance.socket, &["--json"]);
    let snapshot: serde_json::Value = serde_json::from_str(&ran.stdout).expect("json");
    assert_eq!(snapshot["version"], 2);
    let vcpus = snapshot["vcpus"].as_array().expect("vcpus");
    assert_eq!(vcpus.len(), 3);
    let sum = |key: &str| -> u64 { vcpus.iter().map(|v| v[key].as_u64().expect(key)).sum() };
    assert_eq!(sum("ran_ns") + sum("elsewhere_ns"), sum("charged_ns"));
    assert_eq!(sum("donated_ns"), sum("received_ns"));
}

#[test]
fn who_is_suspected_and_carried_is_shown_and_where_hints_come_from() {
    let mut instance = Instance::start_with(
        "suspects",
        &[
            "--hints",
            "inferred",
            "--host-cpus",
            &common::first_cpu(),
            "--cmdline",
            "lock=mcs seconds=0 hints=stock wait=spin",
        ],
    );
    let socket = &instance.socket;
    let mut seen = [false; 3];
    instance.run.until("a suspect is carried", || {
        let json = once(socket, &["--json"]).stdout;
        let snapshot: serde_json::Value = serde_json::from_str(&json).expect("json");
        let cpu = &snapshot["cpus"][0];
        let vcpus = snapshot["vcpus"].as_array().expect("vcpus");
        let now = [
            snapshot["guests"][0]["hints"] == "inferred (preempt count)",
            cpu["suspect"] == true && cpu["lock"].is_null() && cpu["run"] != cpu["donor"],
            vcpus.iter().any(|vcpu| vcpu["waits_for_suspect"] == true),
        ];
        for (seen, now) in seen.iter_mut().zip(now) {
            *seen |= now;
        }
        seen == [true; 3]
    });
    let text = once(socket, &["--interval", "50ms"]).stdout;
    assert!(
        text.contains("\nhints: inferred (preempt count)\n"),
        "{text}"
    );
}

/// A pseudo-terminal of 40 lines and 140 columns.
fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize {
        ws_row: 40,
        ws_col: 140,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: two descriptors are written and the size is read; there are no further arguments.
    let made = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(made, 0, "a pseudo-terminal");
    // SAFETY: both were just opened, and nothing else owns them.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

fn modes(terminal: &OwnedFd) -> (u32, u32) {
    // SAFETY: the descriptor is open, and tcgetattr fills the structure.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes), 0);
        (modes.c_lflag, modes.c_iflag)
    }
}

/// Reads from the terminal until `part` has been drawn.
fn await_drawn(screen: &mut File, part: &str) {
    let mut drawn = Vec::new();
    let mut some = [0; 4096];
    while !String::from_utf8_lossy(&drawn).contains(part) {
        let got = screen.read(&mut some).expect("the view draws");
        drawn.extend_from_slice(&some[..got]);
    }
}

/// The view of `instance` on the terminal `theirs`.
fn view(instance: &Instance, theirs: &OwnedFd) -> Running {
    let io = || Stdio::from(theirs.try_clone().expect("descriptor"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command
        .args(["top", "--interval", "20ms", "--socket"])
        .arg(&instance.socket)
        .env("TERM", "xterm")
        .stdin(io())
        .stdout(io())
        .stderr(io())
        // The kernel stops no process of a group that no other process could continue.
        .process_group(0);
    Running::spawn(&mut command)
}

/// Reads what is drawn, so that the view can go on, until no process has the terminal open.
fn drain(screen: &mut File) {
    let mut some = [0; 4096];
    while screen.read(&mut some).is_ok_and(|got| got > 0) {}
}

#[test]
fn the_view_draws_filters_and_quits_with_the_terminal_as_it_was() {
    let instance = Instance::start("view");
    let (mut screen, theirs) = terminal();
    let before = modes(&theirs);
    let mut view = view(&instance, &theirs);
    await_drawn(&mut screen, "guest/0");
    assert_ne!(modes(&theirs), before, "the view takes single keys");
    screen.write_all(b"/").expect("types");
    await_drawn(&mut screen, "guest:");
    screen.write_all(b"zz\rq").expect("types");
    // The view goes on only while its output is read.
    let reader = std::thread::spawn(move || drain(&mut screen));
    let code = view.wait().expect("ends");
    assert!(code.success(), "{code}");
    assert_eq!(modes(&theirs), before);
    drop(theirs);
    reader.join().expect("reads");
}

#[test]
fn a_signal_ends_the_view_with_the_terminal_as_it_was() {
    let instance = Instance::start("signal");
    let (mut screen, theirs) = terminal();
    let before = modes(&theirs);
    let mut view = view(&instance, &theirs);
    await_drawn(&mut screen, "guest/0");
    view.signal(libc::SIGTERM);
    let reader = std::thread::spawn(move || drain(&mut screen));
    let code = view.wait().expect("ends");
    assert!(code.success(), "{code}");
    assert_eq!(modes(&theirs), before);
    drop(theirs);
    reader.join().expect("reads");
}

/// Sets the modes of the terminal as a shell does for itself: lines, echo, and keys that send signals.
fn set_line_mode(terminal: &OwnedFd) {
    let fd = terminal.as_raw_fd();
    // SAFETY: the descriptor is open, tcgetattr fills the structure, and only flags of it are changed.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(fd, &raw mut modes), 0);
        modes.c_lflag |= libc::ICANON | libc::ECHO | libc::ISIG;
        assert_eq!(libc::tcsetattr(fd, libc::TCSANOW, &raw const modes), 0);
    }
}

/// Waits until `view` is stopped.
fn await_stop(view: &Running) {
    let pid = view.id() as i32;
    let mut status = 0;
    // SAFETY: the status is written, and the child is ours.
    let stopped = unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) };
    assert!(stopped == pid && libc::WIFSTOPPED(status), "{status}");
}

/// A word that the view draws only when it draws all of the screen. It draws no blanks.
const TITLE: &str = "vCPUs";

#[test]
fn a_view_that_was_stopped_draws_all_of_the_screen_again_when_it_is_continued() {
    let instance = Instance::start("continue");
    let (mut screen, theirs) = terminal();
    let before = modes(&theirs);
    let mut view = view(&instance, &theirs);
    await_drawn(&mut screen, TITLE);
    view.signal(libc::SIGSTOP);
    await_stop(&view);
    // What a shell does meanwhile. All that the view drew before comes before this line.
    set_line_mode(&theirs);
    let mut shell = File::from(theirs.try_clone().expect("descriptor"));
    shell.write_all(b"from-the-shell").expect("prints");
    await_drawn(&mut screen, "from-the-shell");
    view.signal(libc::SIGCONT);
    await_drawn(&mut screen, TITLE);
    assert_ne!(modes(&theirs), before, "the view takes single keys again");
    screen.write_all(b"q").expect("types");
    drop(shell);
    let reader = std::thread::spawn(move || drain(&mut screen));
    assert!(view.wait().expect("ends").success());
    assert_eq!(modes(&theirs), before);
    drop(theirs);
    reader.join().expect("reads");
}

#[test]
fn ctrl_z_stops_the_view_with_the_terminal_as_it_was() {
    let instance = Instance::start("suspend");
    let (mut screen, theirs) = terminal();
    let before = modes(&theirs);
    let mut view = view(&instance, &theirs);
    await_drawn(&mut screen, TITLE);
    screen.write_all(b"\x1a").expect("types");
    await_stop(&view);
    assert_eq!(modes(&theirs), before);
    view.signal(libc::SIGCONT);
    await_drawn(&mut screen, TITLE);
    screen.write_all(b"q").expect("types");
    let reader = std::thread::spawn(move || drain(&mut screen));
    assert!(view.wait().expect("ends").success());
    drop(theirs);
    reader.join().expect("reads");
}

#[test]
fn a_run_that_was_started_without_a_runtime_directory_is_found_from_a_shell_that_has_one() {
    let mut command = common::command(&["run", "--cmdline", "workload=hog seconds=0"]);
    command.env_remove("XDG_RUNTIME_DIR");
    let mut run = Running::spawn(&mut command);
    let pid = run.id().to_string();
    let elsewhere = std::env::temp_dir();
    let mut found = String::new();
    run.until("top finds the run", || {
        let mut top = Command::new(env!("CARGO_BIN_EXE_baton"));
        top.args(["top", "--once", "--json", &pid]);
        let output = common::output(top.env("XDG_RUNTIME_DIR", &elsewhere));
        found = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
    });
    assert!(found.contains(&format!("\"pid\": {pid},")), "{found}");
}
