//! A cgroup with a cpuset of its own, of either version, for one process.

use std::fs;
use std::path::PathBuf;

/// A cgroup, removed when dropped.
pub struct Cpuset(PathBuf);

impl Cpuset {
    /// One with these CPUs; `None`, and a sentence, where this user cannot make one.
    pub fn new(name: &str, cpus: &[usize]) -> Option<Self> {
        let made = hierarchy()
            .ok_or_else(|| "no cpuset controller is mounted".to_owned())
            .and_then(|parent| {
                let path = parent.join(name);
                fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let cpuset = Self(path);
                // Version 1 requires the memory nodes, too.
                if let Ok(nodes) = fs::read_to_string(parent.join("cpuset.mems")) {
                    let _ = fs::write(cpuset.0.join("cpuset.mems"), nodes);
                }
                cpuset.try_set(cpus)?;
                Ok(cpuset)
            });
        made.map_err(|why| eprintln!("skipped: a cpuset cannot be made here: {why}"))
            .ok()
    }

    fn try_set(&self, cpus: &[usize]) -> Result<(), String> {
        let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
        let file = self.0.join("cpuset.cpus");
        fs::write(&file, cpus.join(",")).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// Its processes may use these CPUs from now on.
    pub fn set(&self, cpus: &[usize]) {
        self.try_set(cpus).expect("the cgroup is ours");
    }

    /// Moves a process into it.
    pub fn enter(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the cgroup is ours");
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        // A process of a test that has failed keeps it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where cgroups with a cpuset can be made.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|mount| {
        let mut fields = mount.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let path = PathBuf::from(path);
        let has = match kind {
            "cgroup" => options.split(',').any(|option| option == "cpuset"),
            "cgroup2" => fs::read_to_string(path.join("cgroup.subtree_control"))
                .is_ok_and(|on| on.split_whitespace().any(|name| name == "cpuset")),
            _ => false,
        };
        has.then_some(path)
    })
}
