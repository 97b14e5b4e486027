//! The number of files that a run may have open, and the part of it that guests can take.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::pvh::{OWNER, PHYS32_ENTRY, elf};
use common::{Running, command, file};

/// Number of guests with sockets to the host.
const GUESTS: usize = 5;
/// Number of programs that connect to each guest but the first.
const PROGRAMS: usize = 64;
/// How long a program waits for an answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts `baton` with `args` and these limits on the number of open files.
fn start_with_limit(args: &[&str], soft: u64, hard: u64) -> Running {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let mut command = command(args);
    let set = move || {
        // SAFETY: the limit is initialized, and the call is allowed between fork and exec.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(set) };
    Running::spawn(&mut command)
}

/// Connects to the socket at `path` as soon as it exists.
fn connect(run: &mut Running, path: &Path) -> UnixStream {
    let mut stream = None;
    run.until("the socket accepts connections", || {
        stream = UnixStream::connect(path).ok();
        stream.is_some()
    });
    let stream = stream.expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream
}

/// The path of a file about the process below `/proc`.
fn proc(run: &Running, file: &str) -> PathBuf {
    format!("/proc/{}/{file}", run.id()).into()
}

/// A path of this test where no file is.
fn path(name: &str) -> PathBuf {
    let name = format!("baton-files-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    path
}

/// Guests that do nothing, each with a vsock device. Also returns the paths of their sockets.
fn guests() -> (String, Vec<PathBuf>) {
    // cli; hlt; jmp
    let code = [0xfa, 0xf4, 0xeb, 0xfc];
    let kernel = file("files.elf", &elf(&code, OWNER, PHYS32_ENTRY));
    let sockets: Vec<_> = (0..GUESTS)
        .map(|guest| path(&format!("{guest}.sock")))
        .collect();
    let tables: String = sockets
        .iter()
        .map(|socket| {
            format!(
                "[[guest]]\nkernel = \"{}\"\nmemory = \"16M\"\nvsock = \"cid=3,path={}\"\n",
                kernel.display(),
                socket.display()
            )
        })
        .collect();
    let config = file(
        "files.toml",
        format!("duration = \"300s\"\n{tables}").as_bytes(),
    );
    (config.to_string_lossy().into_owned(), sockets)
}

/// The number of open files that a run needs, from the sentence with which it was refused where `allowed`
/// files may be open.
fn needed(sentence: &str, allowed: u64) -> u64 {
    sentence
        .strip_prefix("baton: this run needs ")
        .and_then(|rest| rest.split_once(&format!(" open files and {allowed} are allowed")))
        .unwrap_or_else(|| panic!("{sentence}"))
        .0
        .parse()
        .expect("a number")
}

fn is_over(mut stream: &UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_limit_of_open_files_is_raised_to_the_hard_one() {
    let control = path("limit.sock");
    let name = control.to_string_lossy();
    let cmdline = "workload=idle seconds=0";
    let args = ["run", "--cmdline", cmdline, "--control", &name];
    let mut run = start_with_limit(&args, 64, 4_000);
    connect(&mut run, &control);
    let limits = std::fs::read_to_string(proc(&run, "limits")).expect("limits");
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .expect("a limit of open files");
    let numbers: Vec<_> = files.split_ascii_whitespace().take(2).collect();
    assert_eq!(numbers, ["4000", "4000"]);
}

#[test]
fn a_guest_that_takes_all_its_sockets_leaves_those_of_others() {
    let (config, sockets) = guests();
    let control = path("control.sock");
    let control_name = control.to_string_lossy();
    let args = ["run", &*config, "--control", &control_name];

    // A run that may open too few files is refused with the number that it needs.
    let refused = start_with_limit(&args, 40, 40).finish();
    let needed = needed(refused.one_sentence(), 40);

    // That number is enough, whatever the guests do.
    let mut run = start_with_limit(&args, needed, needed);
    let greedy: Vec<Vec<UnixStream>> = sockets[1..]
        .iter()
        .map(|socket| (0..PROGRAMS).map(|_| connect(&mut run, socket)).collect())
        .collect();
    for programs in &greedy {
        // Each connection takes the place of the one before.
        assert!(programs[..PROGRAMS - 1].iter().all(is_over));
    }
    let open = std::fs::read_dir(proc(&run, "fd")).expect("files").count();
    assert!(open as u64 <= needed, "{open} of {needed}");

    let mut program = connect(&mut run, &sockets[0]);
    program.write_all(b"no such command\n").expect("room");
    assert!(is_over(&program), "the guest's socket answers");
    let mut client = connect(&mut run, &control);
    let mut answer = String::new();
    write!(client, "GET /snapshot HTTP/1.1\r\n\r\n").expect("room");
    client
        .read_to_string(&mut answer)
        .expect("the control socket answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn the_number_of_files_that_many_guests_need_is_told_and_enough() {
    let guest = "[[guest]]\ncpus = 2\nmemory = \"8M\"\ncmdline = \"workload=boot\"\n";
    let config = file("many.toml", guest.repeat(16).as_bytes());
    let config = config.to_string_lossy();
    for sched in ["baton", "host"] {
        let args = ["run", &*config, "--sched", sched, "--control", "off"];
        let refused = start_with_limit(&args, 50, 50).finish();
        let needed = needed(refused.one_sentence(), 50);
        let ran = start_with_limit(&args, 50, needed).finish();
        assert_eq!(ran.code, 0, "{needed} files: {ran:?}");
    }
}
