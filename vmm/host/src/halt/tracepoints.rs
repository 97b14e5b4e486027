//! The numbers of KVM's tracepoints, by which perf knows them.
//!
//! They are in tracefs, which is root's as a rule and not mounted everywhere. Root looks at an instance
//! of its own, which is attached nowhere and gone when it is closed: nothing changes in the file system.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where it is mounted, if at all.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The number of tracepoint `name` of KVM.
///
/// # Errors
/// `NotFound` if this kernel has none of that name; others if that cannot be told.
pub(super) fn number(name: &str) -> io::Result<u64> {
    let path = format!("events/kvm/{name}/id");
    let mounted = MOUNTED
        .iter()
        .find_map(|place| fs::read_to_string(Path::new(place).join(&path)).ok());
    let text = match mounted {
        Some(text) => text,
        None => read_unattached(&path)?,
    };
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: not a number")))
}

/// What is at `path` in tracefs. Takes `CAP_SYS_ADMIN`.
fn read_unattached(path: &str) -> io::Result<String> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Without options: all instances share theirs.
    fsconfig_create(&context)?;
    let root = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let file = openat(&root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text)
}
