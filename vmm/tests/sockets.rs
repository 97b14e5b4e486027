//! Sockets by which a run is reached, and sockets that earlier runs have left behind.

mod common;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Running, command, output, start};

/// A directory of one test, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("baton-sockets-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .expect("a directory");
        Self(path)
    }

    /// Creates a socket without a listener.
    fn left_over(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        drop(UnixListener::bind(&path).expect("a socket"));
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("reads");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.flatten().map(name).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts a run without an end.
fn start_endless(control: &Path) -> Running {
    let control = control.to_string_lossy();
    start(&[
        "run",
        "--cmdline",
        "workload=idle seconds=0",
        "--control",
        &control,
    ])
}

#[test]
fn of_two_runs_that_find_a_socket_of_before_one_starts_and_can_be_reached() {
    let directory = Directory::new("two");
    let path = directory.left_over("control.sock");
    let mut runs = [start_endless(&path), start_endless(&path)];
    let refused = loop {
        let ended = |run: &mut Running| run.try_wait().expect("a child").is_some();
        if let Some(refused) = runs.iter_mut().position(ended) {
            break refused;
        }
        std::thread::yield_now();
    };
    let [first, second] = runs;
    let (refused, mut other) = match refused {
        0 => (first, second),
        _ => (second, first),
    };
    let refused = refused.finish();
    let sentence = refused.one_sentence();
    assert!(
        sentence.contains("cannot offer the control socket"),
        "{sentence}"
    );
    other.until("the other run can be reached", || {
        UnixStream::connect(&path).is_ok()
    });
    other.signal(libc::SIGTERM);
    assert_eq!(other.finish().stderr, "");
    assert_eq!(directory.names(), [""; 0]);
}

#[test]
fn top_looks_at_sockets_where_somebody_listens_whatever_process_has_their_number() {
    let directory = Directory::new("top");
    let runtime = directory.0.join("baton");
    DirBuilder::new()
        .mode(0o700)
        .create(&runtime)
        .expect("a directory");
    let number = format!("{}.sock", std::process::id());
    drop(UnixListener::bind(runtime.join(number)).expect("a socket"));
    let mut top = Command::new(env!("CARGO_BIN_EXE_baton"));
    top.args(["top", "--once"])
        .env("XDG_RUNTIME_DIR", &directory.0)
        .stdin(Stdio::null());
    let error = String::from_utf8_lossy(&output(&mut top).stderr).into_owned();
    assert!(error.contains("no running instance of baton"), "{error}");
}

#[test]
fn a_run_goes_on_without_the_control_socket_that_nobody_asked_for() {
    let directory = Directory::new("long");
    // This path is longer than the address of a socket may be.
    let runtime = directory.0.join("x".repeat(100));
    fs::create_dir(&runtime).expect("a directory");
    let mut run = command(&["run", "--cmdline", "workload=boot"]);
    run.env("XDG_RUNTIME_DIR", &runtime);
    let ran = Running::spawn(&mut run).finish();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr.contains("this run has no control socket"),
        "{ran:?}"
    );
}
