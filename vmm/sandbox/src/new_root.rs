//! The root directory of the process: a file system in memory, in which there is only what stays reachable, at the
//! paths at which it was.
//!
//! Each path is opened as a detached mount (`open_tree`) while the old root is in place, the new root is built over
//! `/proc`, which every host has, and becomes the root. So no name that the guest's process could change is looked up
//! twice. Source of the sequence: pivot_root(2), "pivot_root(".", ".")".

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, StatVfsMountFlags, fstat, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_remount, move_mount,
    open_tree, unmount,
};
use rustix::process::{getpid, pivot_root};

use crate::error::SandboxError;
use crate::reach::{Access, Reach};

/// Where the new root is built.
const STAGE: &str = "/proc";

/// What every process may read: its own part of `/proc`, and what it finds out about the host there.
const OF_THE_HOST: [&str; 9] = [
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/perf_event_paranoid",
    "/sys/devices/system/cpu",
    "/sys/module/kvm",
    "/sys/module/kvm_amd",
    "/sys/module/kvm_intel",
    "/sys/module/kvm_pvm",
];

/// A part of the old root that becomes one of the new.
struct Part {
    path: PathBuf,
    access: Access,
    is_directory: bool,
    mount: OwnedFd,
}

/// Leaves the calling process nothing of the file system but `reachable`. Relative paths stay valid.
pub(crate) fn enter(reachable: &[Reach]) -> Result<(), SandboxError> {
    let here = std::env::current_dir().map_err(SandboxError::step("the current directory"))?;
    let process = PathBuf::from(format!("/proc/{}", getpid().as_raw_nonzero()));
    let of_the_host = OF_THE_HOST.iter().map(Reach::read);
    let own = Reach::write(&process);
    let all = reachable.iter().cloned().chain(of_the_host).chain([own]);
    let mut parts = Vec::new();
    for reach in all {
        parts.extend(detached(here.join(&reach.path), reach.access)?);
    }
    // What is within a directory comes after it.
    parts.sort_by_key(|part| part.path.components().count());
    mount(
        "tmpfs",
        STAGE,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        c"size=256k,mode=755",
    )
    .map_err(SandboxError::step("a root directory"))?;
    std::env::set_current_dir(STAGE).map_err(SandboxError::step("a root directory"))?;
    for part in &parts {
        attach(part)?;
    }
    let inside = relative(&here);
    directories(&inside).map_err(SandboxError::step("the current directory"))?;
    let name = process.file_name().unwrap_or_default();
    symlink(name, "proc/self").map_err(SandboxError::step("/proc/self"))?;
    pivot_root(".", ".").map_err(SandboxError::step("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(SandboxError::step("the old root"))?;
    let fixed = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    mount_remount("/", fixed, c"").map_err(SandboxError::step("a root directory"))?;
    std::env::set_current_dir(&here).map_err(SandboxError::step("the current directory"))
}

/// What is at `path`, as a mount that is attached nowhere; `None` if there is nothing.
fn detached(path: PathBuf, access: Access) -> Result<Option<Part>, SandboxError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = match open_tree(CWD, &path, flags) {
        Ok(mount) => mount,
        // Whoever opens it gets the error.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG) => {
            return Ok(None);
        }
        Err(source) => return Err(SandboxError::Reach { path, source }),
    };
    let status = fstat(&mount).map_err(|source| SandboxError::Reach {
        path: path.clone(),
        source,
    })?;
    Ok(Some(Part {
        is_directory: rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir(),
        path,
        access,
        mount,
    }))
}

/// Puts `part` where it was, below the current directory, which becomes the root.
fn attach(part: &Part) -> Result<(), SandboxError> {
    let failed = |source: Errno| SandboxError::Reach {
        path: part.path.clone(),
        source,
    };
    let failed_io = |error: io::Error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let target = relative(&part.path);
    if part.is_directory {
        directories(&target).map_err(failed_io)?;
    } else {
        directories(target.parent().unwrap_or(Path::new(""))).map_err(failed_io)?;
        // Within a directory that was attached before, the file is there.
        if !target.exists() {
            fs::File::create(&target).map_err(failed_io)?;
        }
    }
    move_mount(
        &part.mount,
        "",
        CWD,
        &target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(failed)?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NOEXEC | kept(&target);
    flags.set(
        MountFlags::RDONLY,
        part.access == Access::Read || flags.contains(MountFlags::RDONLY),
    );
    if part.access != Access::Device {
        flags |= MountFlags::NODEV;
    }
    mount_remount(&target, flags, c"").map_err(failed)
}

/// The flags of the mount at `path` that a user's namespace may not take away.
fn kept(path: &Path) -> MountFlags {
    let Ok(status) = statvfs(path) else {
        return MountFlags::empty();
    };
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let set = pairs.iter().filter(|(is, _)| status.f_flag.contains(*is));
    set.fold(MountFlags::empty(), |all, (_, flag)| all | *flag)
}

/// `path`, which is absolute, from the root directory.
fn relative(path: &Path) -> PathBuf {
    let parts = path.components();
    parts
        .filter(|part| !matches!(part, Component::RootDir))
        .collect()
}

/// Creates the directories of `path`, one after the other, so that `..` in it stays valid.
fn directories(path: &Path) -> io::Result<()> {
    let mut made = PathBuf::new();
    for part in path.components() {
        made.push(part);
        match fs::create_dir(&made) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
