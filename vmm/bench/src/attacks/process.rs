//! One run as a process of its own, so that the kernel accounts the CPU time of the run separately.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// A process that has ended.
#[derive(Debug)]
pub struct EndedProcess {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// CPU time of all its threads from its start to its end, by the kernel's accounting, nanoseconds.
    pub cpu_ns: u64,
}

/// The privileges of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// Those of this process.
    All,
    /// Those of this process without the capabilities that permit perf events: `CAP_PERFMON` and `CAP_SYS_ADMIN`.
    NoPerfEvents,
}

/// From `linux/capability.h`.
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;

/// Runs `program` with `arguments` to its end.
///
/// # Errors
/// If the process cannot be started or waited for.
pub fn run(program: &Path, arguments: &[&str], privileges: Privileges) -> io::Result<EndedProcess> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if privileges == Privileges::NoPerfEvents {
        // SAFETY: makes system calls only, which are allowed between fork and exec.
        unsafe { command.pre_exec(drop_perf_events) };
    }
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || text(stderr));
    let stdout = text(stdout);
    // The thread does not panic.
    let stderr = errors.join().unwrap_or_default();
    let (status, cpu_ns) = wait(&mut child)?;
    Ok(EndedProcess {
        status,
        stdout,
        stderr,
        cpu_ns,
    })
}

/// Removes the capabilities from the bounding set, which limits what root has after exec.
fn drop_perf_events() -> io::Result<()> {
    for capability in [CAP_PERFMON, CAP_SYS_ADMIN] {
        // SAFETY: takes numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The contents of `pipe`, as far as they can be read.
fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is kept.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end of `child`, which was not waited for before.
fn wait(child: &mut Child) -> io::Result<(ExitStatus, u64)> {
    let id = child.id() as libc::pid_t;
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    loop {
        // SAFETY: both places are writable and live through the call; the child is ours and was not yet
        // waited for, so the number is its own.
        let waited = unsafe { libc::wait4(id, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == id {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: integers only, zeroed before the kernel filled it.
    let usage = unsafe { usage.assume_init() };
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    let ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
    Ok((ExitStatus::from_raw(status), ns))
}

fn time(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> EndedProcess {
        run(Path::new("/bin/sh"), &["-c", script], Privileges::All).expect("a shell")
    }

    #[test]
    fn output_and_status_are_those_of_the_process() {
        let ended = shell("echo out; echo error >&2; exit 7");
        assert_eq!(ended.status.code(), Some(7));
        assert_eq!((&*ended.stdout, &*ended.stderr), ("out\n", "error\n"));
    }

    #[test]
    fn cpu_time_counts_what_the_process_computes_and_not_what_it_waits() {
        let idle = shell("read nothing").cpu_ns;
        let busy = shell("i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done").cpu_ns;
        assert!(busy > 2 * idle, "{busy} and {idle}");
    }
}
