//! Where cpusets are mounted, and of which version they are.

use std::path::{Path, PathBuf};

use super::error::IsolationError;
use super::host::Host;

/// The options of a mount of version 1 that are controllers, apart from `cpuset`.
const OTHER_CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "memory",
    "blkio",
    "devices",
    "freezer",
    "pids",
    "net_cls",
    "net_prio",
    "hugetlb",
    "perf_event",
    "rdma",
];

/// The control groups that have the cpuset controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hierarchy {
    /// Version 1, whose root group is this directory.
    V1(PathBuf),
    /// Version 2.
    V2 {
        /// The directory of the root group.
        root: PathBuf,
        /// The group of this process.
        own: PathBuf,
    },
}

impl Hierarchy {
    /// The one of this process. A host has cpusets in one version only.
    ///
    /// # Errors
    /// If there is none that can be used.
    pub(super) fn find(host: &impl Host) -> Result<Self, IsolationError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = host
            .read(path)
            .map_err(IsolationError::host("reading", path))?;
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let v1 = mounts
            .iter()
            .find(|mount| mount.kind == "cgroup" && mount.has("cpuset"));
        if let Some(mount) = v1 {
            return match OTHER_CONTROLLERS.iter().find(|name| mount.has(name)) {
                None => Ok(Self::V1(mount.point.into())),
                Some(name) => Err(IsolationError::SharedMount {
                    mount: mount.point.into(),
                    controller: (*name).to_owned(),
                }),
            };
        }
        let v2 = mounts.iter().find(|mount| mount.kind == "cgroup2");
        let v2 = v2.filter(|mount| has_controller(host, Path::new(mount.point)));
        let mount = v2.ok_or(IsolationError::NoCpusets)?;
        let own = own_group(host, mount)?;
        Ok(Self::V2 {
            root: mount.point.into(),
            own,
        })
    }
}

fn has_controller(host: &impl Host, root: &Path) -> bool {
    let controllers = host.read(&root.join("cgroup.controllers"));
    controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "cpuset"))
}

/// The directory of the group of this process.
fn own_group(host: &impl Host, mount: &Mount<'_>) -> Result<PathBuf, IsolationError> {
    let path = Path::new("/proc/self/cgroup");
    let groups = host
        .read(path)
        .map_err(IsolationError::host("reading", path))?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    // A mount may begin further down than at the root group, as in containers.
    let below = own.and_then(|own| Path::new(own).strip_prefix(mount.root).ok());
    let below = below.ok_or(IsolationError::NoCpusets)?;
    Ok(Path::new(mount.point).join(below))
}

/// A line of `mountinfo`.
struct Mount<'a> {
    /// Which directory of the file system is mounted.
    root: &'a str,
    /// Where it is mounted.
    point: &'a str,
    /// The kind of file system.
    kind: &'a str,
    /// The options of the file system.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Self {
            root: mount.next()?,
            point: mount.next()?,
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_host::FakeHost;
    use super::*;

    const V1: &str =
        "33 27 0:28 / /sys/fs/cgroup/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset\n";
    const V2: &str = "30 27 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn find(mounts: &str, own: &str) -> Result<Hierarchy, IsolationError> {
        let host = FakeHost::default();
        host.file("/proc/self/mountinfo", mounts);
        host.file("/proc/self/cgroup", own);
        host.file("/sys/fs/cgroup/cgroup.controllers", "cpu cpuset memory\n");
        host.file("/sys/fs/cgroup/unified/cgroup.controllers", "\n");
        Hierarchy::find(&host)
    }

    #[test]
    fn version_1_is_used_where_it_has_the_cpusets_and_version_2_otherwise() {
        let hybrid = format!(
            "{}{V1}",
            V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
        );
        let v1 = find(&hybrid, "3:cpuset:/\n0::/\n").expect("found");
        assert_eq!(v1, Hierarchy::V1("/sys/fs/cgroup/cpuset".into()));
        let v2 = find(V2, "0::/system.slice/a.service\n").expect("found");
        assert_eq!(
            v2,
            Hierarchy::V2 {
                root: "/sys/fs/cgroup".into(),
                own: "/sys/fs/cgroup/system.slice/a.service".into()
            }
        );
        let container = V2.replace(" / /sys", " /docker/1 /sys");
        let v2 = find(&container, "0::/docker/1/a\n").expect("found");
        assert!(matches!(v2, Hierarchy::V2 { own, .. } if own == Path::new("/sys/fs/cgroup/a")));
    }

    #[test]
    fn hosts_without_cpusets_of_their_own_are_refused_in_a_sentence() {
        let none = find("1 1 0:1 / / rw - ext4 /dev/vda rw\n", "").expect_err("none");
        assert!(none.to_string().contains("isolcpus="), "{none}");
        let shared = find(&V1.replace("rw,cpuset", "rw,cpuset,cpu"), "").expect_err("shared");
        assert!(
            shared.to_string().contains("the controller cpu,"),
            "{shared}"
        );
    }
}
