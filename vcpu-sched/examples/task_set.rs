//! A set of periodic vCPUs from a file, through the simulator: how often each completes a job, how long it
//! waits for its lock, and how many deadlines it misses.
//!
//!     cargo run -p vcpu-sched --example task_set [FILE]
//!
//! Without FILE, `examples/task_set.toml`. Set `proxy = false` in it to see what proxying changes.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use serde::Deserialize;
use vcpu_sched::sim::{Costs, LockId, LockKind, Script, Simulation, Step};
use vcpu_sched::{Config, GuestId, Ns, Reservation, SchedParams};

const US: Ns = 1_000;

/// The file. Times are in microseconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskSet {
    cpus: usize,
    proxy: bool,
    duration: u64,
    vcpu: Vec<Task>,
}

/// A vCPU that does one job in each period. Without a period it computes without end.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    name: String,
    guest: String,
    /// Budget and period of a hard reservation; without it `weight` counts.
    reservation: Option<(u64, u64)>,
    weight: Option<u32>,
    period: Option<u64>,
    #[serde(default)]
    compute: u64,
    lock: Option<String>,
    #[serde(default)]
    hold: u64,
}

impl Task {
    fn params(&self) -> Result<SchedParams, Box<dyn Error>> {
        Ok(match self.reservation {
            Some((budget, period)) => {
                SchedParams::Reserved(Reservation::hard(budget * US, period * US)?)
            }
            None => SchedParams::BestEffort {
                weight: self.weight.unwrap_or(100),
            },
        })
    }

    fn script(&self, lock: Option<LockId>) -> Script {
        let Some(period) = self.period else {
            return Script::hog();
        };
        let mut steps = vec![Step::Compute(self.compute * US)];
        if let Some(lock) = lock {
            steps.extend([
                Step::Lock(lock),
                Step::Compute(self.hold * US),
                Step::Unlock(lock),
            ]);
        }
        steps.push(Step::NextPeriod(period * US));
        Script::forever(steps)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/task_set.toml");
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(default, PathBuf::from);
    let set: TaskSet = toml::from_str(&std::fs::read_to_string(path)?)?;

    let config = Config {
        proxy: set.proxy,
        ..Config::new(set.cpus)
    };
    let mut simulation = Simulation::new(config, Costs::default());
    let mut guests: BTreeMap<&str, GuestId> = BTreeMap::new();
    let mut locks: BTreeMap<(&str, &str), LockId> = BTreeMap::new();
    for task in &set.vcpu {
        let guest = *guests
            .entry(&task.guest)
            .or_insert_with(|| simulation.guest());
        let lock = task.lock.as_deref().map(|lock| {
            *locks
                .entry((&task.guest, lock))
                .or_insert_with(|| simulation.lock(guest, LockKind::Ticket))
        });
        simulation.vcpu(guest, task.params()?, task.script(lock))?;
    }

    let outcome = simulation.run(set.duration * US);
    println!(
        "{:<12} {:>10} {:>8} {:>14} {:>10} {:>10} {:>10}",
        "vCPU", "ran, us", "jobs", "longest wait", "missed", "donated", "received"
    );
    for (task, vcpu) in set.vcpu.iter().zip(&outcome.vcpus) {
        println!(
            "{:<12} {:>10} {:>8} {:>11} us {:>10} {:>10} {:>10}",
            task.name,
            vcpu.counters.runtime_ns / US,
            vcpu.passes,
            vcpu.wait_max_ns / US,
            vcpu.counters.deadline_misses,
            vcpu.counters.donated_ns / US,
            vcpu.counters.received_ns / US
        );
    }
    Ok(())
}
