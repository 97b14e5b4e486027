//! The memory cgroups of this process.

use std::path::{Path, PathBuf};

use super::proc_file::{read, value_of};

/// The two versions of cgroups. A process may be in a memory cgroup of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The directory of a memory cgroup.
#[derive(Debug)]
pub(super) struct MemoryCgroup {
    path: PathBuf,
    version: Version,
}

impl MemoryCgroup {
    /// The number in the file that is named `one` or `two`, by version.
    fn number(&self, one: &str, two: &str) -> Option<u64> {
        let name = match self.version {
            Version::One => one,
            Version::Two => two,
        };
        read(&self.path.join(name)).trim().parse().ok()
    }

    /// The limit, bytes. `None` if there is none, which version 2 writes as `max`. Version 1 writes a number that
    /// exceeds the memory of any host.
    pub(super) fn limit(&self) -> Option<u64> {
        self.number("memory.limit_in_bytes", "memory.max")
    }

    /// Memory in use, bytes, without the contents of files that the kernel drops first when memory is short.
    pub(super) fn used(&self) -> u64 {
        let used = self.number("memory.usage_in_bytes", "memory.current");
        let files = match self.version {
            Version::One => "total_inactive_file",
            Version::Two => "inactive_file",
        };
        let droppable = value_of(&read(&self.path.join("memory.stat")), files);
        used.unwrap_or(0).saturating_sub(droppable.unwrap_or(0))
    }
}

/// The memory cgroup of this process and those above it, as far as the files below `root` show them.
pub(super) fn groups(root: &Path) -> Vec<MemoryCgroup> {
    let memberships = read(&root.join("proc/self/cgroup"));
    let mounts = read(&root.join("proc/self/mountinfo"));
    let mut groups = Vec::new();
    for (version, path) in memberships.lines().filter_map(membership) {
        let Some((mount, top)) = mounts.lines().find_map(|line| mount_of(line, version)) else {
            continue;
        };
        // In a container only a part of the tree may be mounted.
        let below = path.strip_prefix(top).unwrap_or(Path::new(""));
        let mount = Path::new(mount).strip_prefix("/").unwrap_or(Path::new(""));
        groups.extend(below.ancestors().map(|part| MemoryCgroup {
            path: root.join(mount).join(part),
            version,
        }));
    }
    groups
}

/// The version and the path of a memory cgroup, from a line of `/proc/self/cgroup`: number, controllers, path.
/// Version 2 has the number 0 and names no controllers.
fn membership(line: &str) -> Option<(Version, &Path)> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let version = match number {
        "0" if controllers.is_empty() => Version::Two,
        _ if controllers.split(',').any(|one| one == "memory") => Version::One,
        _ => return None,
    };
    Some((version, Path::new(path)))
}

/// From a line of mountinfo: where the cgroups of `version` are mounted, and which cgroup is at the top there.
/// `None` if the line is about another mount.
fn mount_of(line: &str, version: Version) -> Option<(&str, &str)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (top, mount) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1)?);
    let ours = match version {
        Version::One => name == "cgroup" && options.split(',').any(|one| one == "memory"),
        Version::Two => name == "cgroup2",
    };
    ours.then_some((mount, top))
}
