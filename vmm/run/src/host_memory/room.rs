//! Whether the memory that guests may use exists: guests share the process, and the kernel that finds
//! none left ends it with all of them.

use std::fs;
use std::path::{Path, PathBuf};

use baton_config::RunConfig;
use baton_config::units::format_bytes;
use thiserror::Error;

/// The guests' memory cannot fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "the guests have {} of memory together, more than the {} {}: give them less, or say \
     --overcommit-memory if they will not use it all",
    format_bytes(*wanted),
    about(*most),
    if *by_cgroup { "that this process's cgroup may use" } else { "of this host" }
)]
pub struct NotEnoughMemory {
    /// Memory of all guests, bytes.
    pub wanted: u64,
    /// What there is at most, bytes.
    pub most: u64,
    /// Whether a cgroup sets that bound, and not the host's size.
    pub by_cgroup: bool,
}

/// Memory that this process may use. Unknown numbers are the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Memory of the host, bytes.
    pub total: u64,
    /// The least limit of the cgroups that this process is in, bytes.
    pub limit: u64,
    /// What can be had now without taking it from others, bytes.
    pub free: u64,
}

impl Room {
    /// As the kernel tells.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::below(Path::new("/"))
    }

    /// As told by the files below `root`, which is `/` but in tests.
    fn below(root: &Path) -> Self {
        let meminfo = read(&root.join("proc/meminfo"));
        let kib = |name| value_of(&meminfo, name).map_or(u64::MAX, |kib| kib.saturating_mul(1024));
        let mut room = Self {
            total: kib("MemTotal:"),
            limit: u64::MAX,
            free: kib("MemAvailable:"),
        };
        for group in groups(root) {
            let Some(limit) = group.limit() else { continue };
            room.limit = room.limit.min(limit);
            room.free = room.free.min(limit.saturating_sub(group.used()));
        }
        room
    }

    /// Whether guests with `wanted` bytes of memory together fit. A sentence if they do only once
    /// others have given some back.
    ///
    /// # Errors
    /// If they never do.
    pub fn check(&self, wanted: u64) -> Result<Option<String>, NotEnoughMemory> {
        let most = self.total.min(self.limit);
        if wanted > most {
            return Err(NotEnoughMemory {
                wanted,
                most,
                by_cgroup: self.limit < self.total,
            });
        }
        Ok((wanted > self.free).then(|| {
            format!(
                "the guests have {} of memory together, and {} are free now: when they use more, the \
                 kernel may end this run with all its guests; give them less, or say \
                 --overcommit-memory",
                format_bytes(wanted),
                about(self.free)
            )
        }))
    }
}

/// Checks the memory of all guests of `config`; that it is not all free now is said on standard error.
///
/// # Errors
/// If there can never be enough, unless the user overcommits.
pub fn check(config: &RunConfig) -> Result<(), NotEnoughMemory> {
    if config.overcommit_memory {
        return Ok(());
    }
    let sizes = config.guests.iter().map(|guest| guest.memory);
    let wanted = sizes.fold(0, u64::saturating_add);
    if let Some(warning) = Room::of_this_process().check(wanted)? {
        baton_os::say!("baton: {warning}");
    }
    Ok(())
}

/// The two forms of cgroups; a process may be in a memory cgroup of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// One cgroup's directory.
#[derive(Debug)]
struct Group {
    path: PathBuf,
    version: Version,
}

impl Group {
    fn number(&self, one: &str, two: &str) -> Option<u64> {
        let name = match self.version {
            Version::One => one,
            Version::Two => two,
        };
        read(&self.path.join(name)).trim().parse().ok()
    }

    /// `None` if there is none: version 2 says `max`, and version 1 a number that no host has.
    fn limit(&self) -> Option<u64> {
        self.number("memory.limit_in_bytes", "memory.max")
    }

    /// In use, without the file contents that the kernel drops first when memory is short.
    fn used(&self) -> u64 {
        let used = self.number("memory.usage_in_bytes", "memory.current");
        let files = match self.version {
            Version::One => "total_inactive_file",
            Version::Two => "inactive_file",
        };
        let droppable = value_of(&read(&self.path.join("memory.stat")), files);
        used.unwrap_or(0).saturating_sub(droppable.unwrap_or(0))
    }
}

/// The memory cgroup of this process and those above it, as far as they can be seen.
fn groups(root: &Path) -> Vec<Group> {
    let memberships = read(&root.join("proc/self/cgroup"));
    let mounts = read(&root.join("proc/self/mountinfo"));
    let mut groups = Vec::new();
    for line in memberships.lines() {
        // Number, controllers, path; version 2 is number 0 and names no controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let version = match number {
            "0" if controllers.is_empty() => Version::Two,
            _ if controllers.split(',').any(|one| one == "memory") => Version::One,
            _ => continue,
        };
        let Some((mount, top)) = mounts.lines().find_map(|line| mount_of(line, version)) else {
            continue;
        };
        // A container may see a part of the tree only.
        let path = Path::new(path);
        let below = path.strip_prefix(top).unwrap_or(Path::new(""));
        for part in below.ancestors() {
            let mount = Path::new(mount).strip_prefix("/").unwrap_or(Path::new(""));
            groups.push(Group {
                path: root.join(mount).join(part),
                version,
            });
        }
    }
    groups
}

/// Where the cgroups of `version` are mounted, and which of them is the top there, if `line` of
/// mountinfo says so.
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

/// `bytes` in whole MiB.
fn about(bytes: u64) -> String {
    format_bytes(bytes >> 20 << 20)
}

/// What a file says; nothing if there is none.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number that stands behind `name` in a line of `text`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A tree of files as a kernel shows them: a host of 1000 MiB, of which 400 MiB are free.
    struct Kernel(PathBuf);

    impl Kernel {
        fn new(files: &[(&str, &str)]) -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("baton-memory-{}-{number}", std::process::id());
            let kernel = Self(std::env::temp_dir().join(name));
            let meminfo = "MemTotal: 1024000 kB\nMemFree: 9 kB\nMemAvailable: 409600 kB\n";
            for (path, text) in [("proc/meminfo", meminfo)].iter().chain(files) {
                let path = kernel.0.join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                fs::write(path, text).expect("a file");
            }
            kernel
        }

        fn room(&self) -> Room {
            Room::below(&self.0)
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn without_cgroups_the_host_is_the_bound() {
        let room = Kernel::new(&[]).room();
        assert_eq!((room.total, room.free), (1000 * MIB, 400 * MIB));
        assert_eq!(room.check(400 * MIB), Ok(None));
        let warning = room.check(401 * MIB).expect("fits").expect("a warning");
        assert!(
            warning.contains("401M") && warning.contains("400M"),
            "{warning}"
        );
        assert_eq!(
            room.check(1000 * MIB).map(|warning| warning.is_some()),
            Ok(true)
        );
        let error = room.check(1001 * MIB).expect_err("refused").to_string();
        assert!(
            error.contains("more than the 1000M of this host"),
            "{error}"
        );
    }

    #[test]
    fn the_least_limit_of_all_cgroups_above_is_the_bound() {
        let kernel = Kernel::new(&[
            ("proc/self/cgroup", "0::/machines/baton\n"),
            (
                "proc/self/mountinfo",
                "25 1 0:22 / /proc rw - proc proc rw\n\
                 30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            ),
            ("sys/fs/cgroup/machines/baton/memory.max", "max\n"),
            ("sys/fs/cgroup/machines/memory.max", "314572800\n"),
            ("sys/fs/cgroup/machines/memory.current", "125829120\n"),
            (
                "sys/fs/cgroup/machines/memory.stat",
                "anon 7\ninactive_file 20971520\n",
            ),
        ]);
        let room = kernel.room();
        assert_eq!((room.limit, room.free), (300 * MIB, 200 * MIB));
        let error = room.check(301 * MIB).expect_err("refused").to_string();
        assert!(
            error.contains("300M that this process's cgroup may use"),
            "{error}"
        );
    }

    #[test]
    fn cgroups_of_the_first_version_are_found_beside_the_second() {
        let kernel = Kernel::new(&[
            (
                "proc/self/cgroup",
                "4:cpu,memory:/docker/c1\n1:name=systemd:/\n0::/\n",
            ),
            (
                "proc/self/mountinfo",
                "34 31 0:31 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,cpu,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "157286400\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "52428800\n"),
        ]);
        let room = kernel.room();
        assert_eq!((room.limit, room.free), (150 * MIB, 100 * MIB));
    }

    #[test]
    fn a_kernel_that_tells_nothing_bounds_nothing() {
        let room = Room::below(Path::new("/nonexistent"));
        assert_eq!(room.check(u64::MAX), Ok(None));
    }

    #[test]
    fn this_host_has_some_memory() {
        let room = Room::of_this_process();
        assert!(room.total < u64::MAX && room.free <= room.total);
        assert!(room.check(u64::MAX).is_err());
    }
}
