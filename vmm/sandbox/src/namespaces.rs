//! Mounts, network, names and shared memory of its own.
//!
//! There is no namespace of processes: the pool reads the CPU time of the process's threads by the numbers that the
//! process reports, and would have to translate them. Signals to other processes are forbidden by
//! `system_calls.rs`, and `/proc` shows this process only (`new_root.rs`).

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getgid, getuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::SandboxError;

/// The threads of this process.
const TASKS: &str = "/proc/self/task";

/// Separates the calling process, which has one thread, from the host's mounts, names and shared memory, and from its
/// network unless `keep_network`. A process that `may_unshare`, as root as a rule, needs no
/// namespace of users for this; others get one, in which they have their own number alone.
pub(crate) fn enter(may_unshare: bool, keep_network: bool) -> Result<(), SandboxError> {
    one_thread()?;
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let mut flags = UnshareFlags::NEWNS;
    flags.set(UnshareFlags::NEWUSER, !may_unshare);
    unshare(flags)?;
    for flag in [
        UnshareFlags::NEWIPC,
        UnshareFlags::NEWUTS,
        UnshareFlags::NEWNET,
    ] {
        if flag == UnshareFlags::NEWNET && keep_network {
            continue;
        }
        match unshare(flag) {
            // This kernel has one of these for all. What the process could do with it, `system_calls.rs` forbids.
            Err(SandboxError::Namespaces(Errno::INVAL)) => {}
            other => other?,
        }
    }
    if !may_unshare {
        // A group may be mapped only by a process that cannot drop groups which deny it something.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
        write("/proc/self/gid_map", &format!("{group} {group} 1"))?;
    }
    // What is mounted from now on is not seen outside.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(SandboxError::step("mounts of its own"))
}

fn unshare(flags: UnshareFlags) -> Result<(), SandboxError> {
    // SAFETY: only CLONE_FILES is unsafe, which is not among the flags.
    unsafe { unshare_unsafe(flags) }.map_err(|error| match error {
        Errno::PERM | Errno::NOSPC | Errno::USERS | Errno::NOSYS | Errno::INVAL => {
            SandboxError::Namespaces(error)
        }
        other => SandboxError::step("namespaces")(other),
    })
}

/// Checks that the process has one thread: privileges belong to threads.
fn one_thread() -> Result<(), SandboxError> {
    let threads = fs::read_dir(TASKS).map_err(SandboxError::step("/proc"))?;
    match threads.count() {
        1 => Ok(()),
        several => Err(SandboxError::Threads(several)),
    }
}

fn write(path: &'static str, text: &str) -> Result<(), SandboxError> {
    fs::write(Path::new(path), text).map_err(SandboxError::step(path))
}
