//! How much memory this process may use.

use std::path::Path;

use baton_config::units::format_bytes;
use thiserror::Error;

use super::cgroup::groups;
use super::proc_file::{read, value_of};

/// The guests have more memory than there can ever be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "the guests have {} of memory together, more than the {} {}: give them less, or say \
     --overcommit-memory if they will not use it all",
    format_bytes(*wanted),
    whole_mib(*most),
    if *by_cgroup { "that this process's cgroup may use" } else { "of this host" }
)]
pub struct NotEnoughMemory {
    /// Memory of all guests, bytes.
    pub wanted: u64,
    /// Memory that there is at most, bytes.
    pub most: u64,
    /// Whether a cgroup sets that bound, and not the size of the host.
    pub by_cgroup: bool,
}

/// Memory that this process may use. A number that is unknown is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Memory of the host, bytes.
    pub total: u64,
    /// The least limit of the cgroups of this process, bytes.
    pub limit: u64,
    /// Memory that is free now, bytes.
    pub free: u64,
}

impl Room {
    /// The numbers that the kernel gives.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::below(Path::new("/"))
    }

    /// The numbers from the files below `root`, which is `/` except in tests.
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

    /// Whether guests with `wanted` bytes of memory together fit. If they fit only when other processes give memory
    /// back, returns a warning.
    ///
    /// # Errors
    /// If they can never fit.
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
                whole_mib(self.free)
            )
        }))
    }
}

/// `bytes` as text, rounded down to MiB.
fn whole_mib(bytes: u64) -> String {
    format_bytes(bytes >> 20 << 20)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
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
    fn a_kernel_that_gives_no_numbers_sets_no_bound() {
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
