//! Sockets by which a run is reached, and those that runs of before have left.

mod common;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{command, finish, start};

/// A directory of a test's own, gone with it.
struct Place(PathBuf);

impl Place {
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

    /// A socket at which nobody listens any more.
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

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A run that would go on for long.
fn long_run(control: &Path) -> Child {
    let control = control.to_string_lossy();
    start(&[
        "run",
        "--cmdline",
        "workload=idle seconds=0",
        "--control",
        &control,
    ])
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: no memory is involved, and the child is not yet waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
}

#[test]
fn of_two_runs_that_find_a_socket_of_before_one_starts_and_can_be_reached() {
    let place = Place::new("two");
    let path = place.left_over("control.sock");
    let mut runs = [long_run(&path), long_run(&path)];
    let refused = loop {
        let ended = |run: &mut Child| run.try_wait().expect("a child").is_some();
        if let Some(refused) = runs.iter_mut().position(ended) {
            break refused;
        }
        std::thread::yield_now();
    };
    let [first, second] = runs;
    let (refused, mut running) = match refused {
        0 => (first, second),
        _ => (second, first),
    };
    let refused = finish(refused);
    let sentence = refused.one_sentence();
    assert!(
        sentence.contains("cannot offer the control socket"),
        "{sentence}"
    );
    while UnixStream::connect(&path).is_err() {
        let over = running.try_wait().expect("a child");
        assert!(over.is_none(), "the other run is over");
        std::thread::yield_now();
    }
    terminate(&running);
    assert_eq!(finish(running).stderr, "");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn top_looks_at_sockets_where_somebody_listens_whatever_process_has_their_number() {
    let place = Place::new("top");
    let directory = place.0.join("baton");
    DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .expect("a directory");
    let number = format!("{}.sock", std::process::id());
    drop(UnixListener::bind(directory.join(number)).expect("a socket"));
    let top = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["top", "--once"])
        .env("XDG_RUNTIME_DIR", &place.0)
        .stdin(Stdio::null())
        .output()
        .expect("baton starts");
    let said = String::from_utf8_lossy(&top.stderr);
    assert!(said.contains("no running instance of baton"), "{said}");
}

#[test]
fn a_run_goes_on_without_the_control_socket_that_nobody_asked_for() {
    let place = Place::new("long");
    // Longer than the address of a socket may be.
    let runtime = place.0.join("x".repeat(100));
    fs::create_dir(&runtime).expect("a directory");
    let mut run = command(&["run", "--cmdline", "workload=boot"]);
    run.env("XDG_RUNTIME_DIR", &runtime);
    let ran = finish(run.spawn().expect("baton starts"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stderr.contains("this run has no control socket"),
        "{ran:?}"
    );
}
