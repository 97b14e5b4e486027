//! What a process has of the host.

use std::collections::BTreeMap;
use std::fs;

use super::pool::ServicePool;

/// What must be the same before and after guests that came and went.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Open files of the pool by what they are.
    files: BTreeMap<String, usize>,
    /// Threads of the pool by their names, without those that wait for work for a while.
    threads: BTreeMap<String, usize>,
    /// Processes that the pool has started.
    children: usize,
    /// The names in the directories of the pool and of host CPUs.
    names: Vec<String>,
}

impl Leftovers {
    /// Whether a guest is about to leave.
    pub fn has_leaving(&self) -> bool {
        self.threads.contains_key("leave")
    }

    /// Those of `pool` now.
    pub fn of(pool: &ServicePool) -> Self {
        let process = format!("/proc/{}", pool.pid());
        let mut files = BTreeMap::new();
        for file in fs::read_dir(format!("{process}/fd")).expect("files") {
            // It may be closed by now.
            if let Ok(path) = file.and_then(|file| fs::read_link(file.path())) {
                *files.entry(kind(&path.to_string_lossy())).or_default() += 1;
            }
        }
        let mut threads = BTreeMap::new();
        for thread in fs::read_dir(format!("{process}/task")).expect("threads") {
            let name = thread.and_then(|thread| fs::read_to_string(thread.path().join("comm")));
            let name = name.unwrap_or_default().trim().to_owned();
            if name != "api-work" && !name.is_empty() {
                *threads.entry(name).or_default() += 1;
            }
        }
        Self {
            files,
            threads,
            children: children(pool.pid()),
            names: ["pool", "cpus"]
                .iter()
                .flat_map(|directory| names(pool, directory))
                .collect(),
        }
    }
}

/// The path of an open file without its numbers, which differ between sockets and between processes.
fn kind(path: &str) -> String {
    path.replace(|c: char| c.is_ascii_digit(), "")
}

fn names(pool: &ServicePool, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(pool.place().path(directory));
    let entries = entries.into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// How many processes have the parent `pid`, those included that have ended and for which nobody has waited.
fn children(pid: i32) -> usize {
    let parent = format!("PPid:\t{pid}");
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let statuses = processes.filter_map(|p| fs::read_to_string(p.path().join("status")).ok());
    statuses
        .filter(|status| status.lines().any(|line| line == parent))
        .count()
}

/// Memory of the pool that is resident and its own, KiB.
pub fn memory(pool: &ServicePool) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pool.pid())).expect("a status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    number.expect("a number")
}
