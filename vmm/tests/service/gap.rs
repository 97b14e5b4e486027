//! How long the first vCPU of a guest does not run.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks.
const EVERY: Duration = Duration::from_micros(200);
/// Longest time for which a vCPU is watched.
const LONGEST: Duration = Duration::from_secs(10);

/// The thread of the first vCPU in a guest's process.
pub struct VcpuThread {
    schedstat: String,
}

impl VcpuThread {
    /// That of the process `pid`, whose guest has joined once.
    pub fn of(pid: i32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
        let is_first = |path: &std::path::PathBuf| {
            let name = fs::read_to_string(path.join("comm"));
            name.is_ok_and(|name| name.starts_with("vcpu0:"))
        };
        let mut paths = tasks.map(|task| task.expect("a thread").path());
        let path = paths.find(is_first).expect("a vCPU");
        let schedstat = path.join("schedstat").to_string_lossy().into_owned();
        Self { schedstat }
    }

    /// CPU time of the thread so far, ns.
    pub fn ran_ns(&self) -> u64 {
        let text = fs::read_to_string(&self.schedstat).unwrap_or_default();
        let ran = text.split(' ').next().and_then(|ran| ran.parse().ok());
        ran.unwrap_or_default()
    }

    /// How long it takes from `since` until the thread has run for 1 ms more than now.
    pub fn runs_after(&self, since: Instant) -> Duration {
        let before = self.ran_ns();
        while self.ran_ns() < before + 1_000_000 && since.elapsed() < LONGEST {
            thread::sleep(EVERY);
        }
        since.elapsed()
    }
}

/// Prints how `gaps` are distributed.
pub fn print(what: &str, mut gaps: Vec<Duration>) {
    gaps.sort_unstable();
    let at = |part: usize| gaps.get((gaps.len() * part / 100).min(gaps.len().saturating_sub(1)));
    let ms = |gap: Option<&Duration>| gap.map_or(0.0, |gap| gap.as_secs_f64() * 1e3);
    println!(
        "{what}: {} times; median {:.1} ms, 90th percentile {:.1} ms, most {:.1} ms",
        gaps.len(),
        ms(at(50)),
        ms(at(90)),
        ms(gaps.last())
    );
}
