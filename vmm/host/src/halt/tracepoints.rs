//! The numbers of KVM's tracepoints, by which perf knows them.
//!
//! They are in tracefs, which as a rule only root can read and which is not mounted everywhere. With root's
//! rights they are read from an instance of tracefs that is attached nowhere and is gone when it is closed:
//! nothing changes in the file system.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where tracefs is mounted, if at all.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The number of tracepoint `name` of KVM.
///
/// # Errors
/// `NotFound` if this kernel has no such tracepoint; other errors if tracefs cannot be read.
pub(super) fn number(name: &str) -> io::Result<u64> {
    let path = format!("events/kvm/{name}/id");
    let mounted = MOUNTED
        .iter()
        .find_map(|mount| fs::read_to_string(Path::new(mount).join(&path)).ok());
    let text = match mounted {
        Some(text) => text,
        None => read_unattached(&path)?,
    };
    text.trim()
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: not a number")))
}

/// Reads the file `path` in tracefs. Needs `CAP_SYS_ADMIN`.
fn read_unattached(path: &str) -> io::Result<String> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Without options, because all instances share them.
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
