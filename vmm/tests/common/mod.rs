//! Running `baton` as a user would.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod echo;
pub mod place;
pub mod pvh;
pub mod reset_kernel;
pub mod running;
pub mod session;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub use running::Running;

/// The first host CPU that this test may use.
pub fn first_cpu() -> String {
    let cpus = baton_os::sys::affinity().expect("the affinity of this process");
    cpus[0].to_string()
}

/// The exit status of Baton's own failures (`docs/exit-status.md`).
pub const FAILED: i32 = 125;
/// The exit status of a run in which several guests failed, or one without a code.
pub const GUESTS_FAILED: i32 = 123;

/// The result of one run of the program.
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
    start(args).finish()
}

/// Runs `baton` with `args` and sends SIGINT to it as soon as it is ready for signals.
pub fn spawn_and_interrupt(args: &[&str]) -> Ran {
    let mut run = start(args);
    signal_when_ready(&mut run, libc::SIGINT);
    run.finish()
}

/// Sends `signal` to a `baton` as soon as it is ready: it handles signals itself and, if it runs guests in its
/// own process, they run.
pub fn signal_when_ready(baton: &mut Running, signal: i32) {
    let pid = baton.pid();
    // Its arguments can be read once it handles signals.
    baton.until("it is ready for signals", || {
        blocks_sigint(pid) && (!is_run(pid) || runs_guests(pid))
    });
    baton.signal(signal);
}

/// Whether SIGSTOP has reached every thread of `pid`.
pub fn all_threads_stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// Whether the process is a `baton run`.
fn is_run(pid: i32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).expect("child runs");
    arguments.split(|byte| *byte == 0).nth(1) == Some(b"run")
}

/// Whether the process has threads that run guests, so that its set-up is over.
fn runs_guests(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("child runs");
    threads.flatten().any(|thread| {
        // A thread may have ended meanwhile.
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        name.starts_with("executor/") || name.starts_with("vcpu0:")
    })
}

/// Whether the main thread of `pid` blocks SIGINT, which the process then handles itself.
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
pub fn start(args: &[&str]) -> Running {
    Running::spawn(&mut command(args))
}

/// `baton` with `args`, not yet started.
pub fn command(args: &[&str]) -> Command {
    assert!(
        std::path::Path::new("/dev/kvm").exists(),
        "this test needs /dev/kvm, and there is none: run it on a host with KVM (see baton check)"
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(args);
    own_no_cpus(&mut command);
    if args.first() == Some(&"run") {
        // Tests pass for ordinary users, too, for whom the host notices halts late.
        command.args(["--late-halts", "allow"]);
    }
    // Signals have their default actions, also where the tests run under nohup or in the background.
    let with_all_signals = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: the default action runs no code of this process.
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

/// Lets the runs of `command` use host CPUs that others own: tests run at the same time.
pub fn own_no_cpus(command: &mut Command) {
    command.env(baton_os::cpu_owner::VARIABLE, "off");
}

/// Runs `command` to its end and returns what it printed.
pub fn output(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::spawn(command).output()
}

impl Ran {
    /// The summary of a run with `--summary json`, which is all that is on standard output.
    pub fn summary(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("no summary alone on standard output: {error}: {self:?}")
        })
    }

    /// The lines that Baton itself printed to standard error, to which guests may print, too.
    pub fn complaints(&self) -> Vec<&str> {
        let own = |line: &&str| line.starts_with("baton: ");
        self.stderr.lines().filter(own).collect()
    }

    /// Standard error, which must be one line, of a run that Baton itself refused.
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

/// Runs the guests of a file under `--sched baton` with further flags. Returns the exit code and the summary.
pub fn run_baton(name: &str, text: &str, flags: &[&str]) -> (i32, Value) {
    let config = file(name, text.as_bytes());
    let path = config.to_string_lossy();
    let mut words = vec!["run", &*path, "--sched", "baton", "--summary", "json"];
    words.extend(flags);
    let ran = baton(&words);
    (ran.code, ran.summary())
}

/// A number in a summary.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {value}"))
}

/// The vCPUs of a guest in a summary.
pub fn vcpus(guest: &Value) -> impl Iterator<Item = &Value> {
    guest["vcpus"].as_array().expect("vCPUs").iter()
}

/// The sum of one number over all vCPUs of a guest.
pub fn sum(guest: &Value, key: &str) -> u64 {
    vcpus(guest).map(|vcpu| number(vcpu, key)).sum()
}

/// Asserts that all CPU time of a guest was charged: that of its vCPUs, and that used for it elsewhere.
pub fn assert_all_charged(guest: &Value) {
    let used = sum(guest, "ran_ns") + sum(guest, "elsewhere_ns");
    assert_eq!(used, sum(guest, "charged_ns"), "{guest}");
}

/// Asserts for every guest in a summary that its locks held, that none of its `acquisitions` is lost, and that
/// each charge belongs to a vCPU that ran.
pub fn assert_locks_held(summary: &Value, acquisitions: u64) {
    for guest in summary["guests"].as_array().expect("guests") {
        assert_eq!(guest["workload"]["counter_ok"], true, "{guest}");
        assert_eq!(guest["workload"]["acquisitions"], acquisitions);
        assert_all_charged(guest);
        assert_eq!(sum(guest, "donated_ns"), sum(guest, "received_ns"));
    }
}
