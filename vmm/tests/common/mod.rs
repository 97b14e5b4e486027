//! Running `baton` as a user would.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod pvh;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The first host CPU that this test may use.
pub fn first_cpu() -> String {
    let cpus = baton_os::sys::affinity().expect("the host tells");
    cpus[0].to_string()
}

/// The exit status of Baton's own failures (`docs/exit-status.md`).
pub const FAILED: i32 = 125;
/// The exit status of a run in which several guests failed, or one without a code.
pub const GUESTS_FAILED: i32 = 123;

/// What one run of the program gave.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `baton` with `args`.
pub fn baton(args: &[&str]) -> Ran {
    finish(start(args))
}

/// Runs `baton` with `args` and sends it SIGINT as soon as it is ready for one.
pub fn spawn_and_interrupt(args: &[&str]) -> Ran {
    let child = start(args);
    interrupt(&child);
    finish(child)
}

/// Sends SIGINT to `child` as soon as it is ready for one.
pub fn interrupt(child: &Child) {
    signal_when_ready(child, libc::SIGINT);
}

/// Sends `signal` to `child` as soon as it takes signals by itself and, if its guests run in its own process,
/// they do.
pub fn signal_when_ready(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("process id");
    // What it is called with is known once it does something.
    while !blocks_sigint(pid) || is_run(pid) && !runs_guests(pid) {
        std::thread::yield_now();
    }
    send(child, signal);
}

/// Whether the process is a `baton run`.
fn is_run(pid: i32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).expect("child runs");
    arguments.split(|byte| *byte == 0).nth(1) == Some(b"run")
}

/// Sends `signal` to `child`.
pub fn send(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("process id");
    // SAFETY: no memory is involved, and the child is not yet waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Whether the process has threads that run guests: the set-up is over.
fn runs_guests(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("child runs");
    threads.flatten().any(|thread| {
        // A thread may have ended meanwhile.
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        name.starts_with("executor/") || name.starts_with("vcpu0:")
    })
}

/// Whether the main thread of `pid` takes SIGINT by itself.
pub fn blocks_sigint(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("child runs");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .expect("signal mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
    mask & (1 << (libc::SIGINT - 1)) != 0
}

/// Starts `baton` with `args`.
pub fn start(args: &[&str]) -> Child {
    command(args).spawn().expect("baton starts")
}

/// `baton` with `args`, not yet started.
pub fn command(args: &[&str]) -> Command {
    assert!(
        std::path::Path::new("/dev/kvm").exists(),
        "this test needs /dev/kvm, and there is none: run it on a host with KVM (see baton check)"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(args);
    if args.first() == Some(&"run") {
        // Tests pass for ordinary users too, where halts are noticed late.
        command.args(["--late-halts", "allow"]);
    }
    // Signals mean what they mean to a user, also where the tests run under nohup or in the background.
    let with_all_signals = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: no code is run for the signal.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(with_all_signals) };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for the end of a `baton`.
pub fn finish(child: Child) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("baton ends");
    Ran {
        code: status.code().expect("baton ends by itself"),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

impl Ran {
    /// The summary of a run with `--summary json`, which is all that stands on standard output.
    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("no summary alone on standard output: {error}: {self:?}")
        })
    }

    /// What Baton itself says on standard error, where guests print to it.
    pub fn complaints(&self) -> Vec<&str> {
        let own = |line: &&str| line.starts_with("baton: ");
        self.stderr.lines().filter(own).collect()
    }

    /// Standard error, which must be one sentence.
    pub fn one_sentence(&self) -> &str {
        assert_eq!(self.code, FAILED, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        self.stderr.trim()
    }
}

/// A file in a directory of the test build that holds `content`.
pub fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("test file");
    path
}

/// An ELF kernel of one segment: `code`, to be loaded at `address` and entered at `entry` in 64-bit mode.
pub fn elf(code: &[u8], address: u64, entry: u64) -> Vec<u8> {
    let length = code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    put(&entry.to_le_bytes());
    put(&64u64.to_le_bytes()); // program headers
    put(&[0; 12]); // no sections, no flags
    put(&[64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]); // sizes and counts
    put(&[1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD, rwx
    for word in [120, address, address, length, length, 1] {
        put(&word.to_le_bytes()); // offset, addresses, lengths, alignment
    }
    put(code);
    elf
}

/// Runs a file of guests under `--sched baton` with further flags; exit code and summary.
pub fn run_baton(name: &str, text: &str, flags: &[&str]) -> (i32, Value) {
    let config = file(name, text.as_bytes());
    let path = config.to_string_lossy();
    let mut words = vec!["run", &*path, "--sched", "baton", "--summary", "json"];
    words.extend(flags);
    let ran = baton(&words);
    (ran.code, ran.summary())
}

/// A number of a summary.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {value}"))
}

/// The vCPUs of a guest in a summary.
pub fn vcpus(guest: &Value) -> impl Iterator<Item = &Value> {
    guest["vcpus"].as_array().expect("vCPUs").iter()
}

/// A number of all vCPUs of a guest together.
pub fn sum(guest: &Value, key: &str) -> u64 {
    vcpus(guest).map(|vcpu| number(vcpu, key)).sum()
}

/// What ran, and what was used elsewhere, was charged.
pub fn assert_paid(guest: &Value) {
    let used = sum(guest, "ran_ns") + sum(guest, "elsewhere_ns");
    assert_eq!(used, sum(guest, "charged_ns"), "{guest}");
}

/// What holds for every guest in a summary that ran `acquisitions` under locks: none is lost, and
/// every charge has one who ran.
pub fn assert_locks_held(summary: &Value, acquisitions: u64) {
    for guest in summary["guests"].as_array().expect("guests") {
        assert_eq!(guest["workload"]["counter_ok"], true, "{guest}");
        assert_eq!(guest["workload"]["acquisitions"], acquisitions);
        assert_paid(guest);
        assert_eq!(sum(guest, "donated_ns"), sum(guest, "received_ns"));
    }
}
