//! Whether the kernel leaves threads under `SCHED_FIFO` as much of a host CPU as the run promises there.
//!
//! Before Linux 6.12, a host CPU runs real-time threads for `kernel.sched_rt_runtime_us` in each
//! `kernel.sched_rt_period_us`. Later kernels use these two only to admit `SCHED_DEADLINE` threads, and for
//! groups of real-time threads if they are built with `CONFIG_RT_GROUP_SCHED`.

use std::fs;

use baton_config::{ExecutorPriority, RunConfig};
use baton_os::sys;

/// The first version of Linux that protects ordinary programs in another way.
const FAIR_SERVER: (u32, u32) = (6, 12);
/// Parts of one host CPU in which promises are added up.
const WHOLE: u128 = 1_000_000;

/// The time that real-time threads may use of each host CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RtLimit {
    runtime_us: u64,
    period_us: u64,
}

impl RtLimit {
    /// That of this host; `None` if there is none.
    fn of_host() -> Option<Self> {
        if sys::kernel_version().is_some_and(|version| version >= FAIR_SERVER) {
            return None;
        }
        let read = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
        Self::parse(&read("sched_rt_runtime_us")?, &read("sched_rt_period_us")?)
    }

    /// `None` for a runtime of -1, which means that there is no limit.
    fn parse(runtime: &str, period: &str) -> Option<Self> {
        Some(Self {
            runtime_us: runtime.trim().parse().ok()?,
            period_us: period.trim().parse().ok().filter(|period| *period > 0)?,
        })
    }

    /// In parts of a host CPU.
    fn parts(self) -> u128 {
        u128::from(self.runtime_us) * WHOLE / u128::from(self.period_us)
    }
}

/// Prints a warning if the kernel takes more from executors than the promises of `config` on `cpus` allow.
pub(crate) fn warn(config: &RunConfig, cpus: &[usize]) {
    let limit = RtLimit::of_host();
    if let Some(warning) = limit.and_then(|limit| warning(config, cpus, limit)) {
        baton_os::say!("baton: {warning}");
    }
}

fn warning(config: &RunConfig, cpus: &[usize], limit: RtLimit) -> Option<String> {
    let promised = promised_on_one(config, cpus);
    if config.executor_priority == ExecutorPriority::Off || promised <= limit.parts() {
        return None;
    }
    // Rounded up, so that a runtime of this many microseconds is enough.
    let needed = (promised * u128::from(limit.period_us)).div_ceil(WHOLE);
    Some(format!(
        "{} % of a host CPU is promised, and the kernel lets --executor-priority have {} %: \
         set kernel.sched_rt_runtime_us to {needed} at least (it is {} of {}), or reserve less",
        percent(promised),
        percent(limit.parts()),
        limit.runtime_us,
        limit.period_us
    ))
}

/// The most that is promised on one host CPU, in parts of it: by reservations that are pinned to it, or by all if
/// they are divided equally among `cpus`.
fn promised_on_one(config: &RunConfig, cpus: &[usize]) -> u128 {
    let mut all = 0;
    let mut pinned = vec![0; cpus.len()];
    for guest in &config.guests {
        for (reservation, host_cpus) in guest.reservations.iter().zip(&guest.host_cpus) {
            let Some(reservation) = reservation else {
                continue;
            };
            let budget = u128::from(reservation.budget()) * WHOLE;
            let parts = budget.div_ceil(u128::from(reservation.period()));
            all += parts;
            if let Some([only]) = host_cpus.as_deref()
                && let Some(index) = cpus.iter().position(|cpu| cpu == only)
            {
                pinned[index] += parts;
            }
        }
    }
    let shared = all.div_ceil(cpus.len().max(1) as u128);
    pinned.into_iter().fold(shared, u128::max)
}

fn percent(parts: u128) -> String {
    let tenths = parts * 1000 / WHOLE;
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        rest => format!("{}.{rest}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use baton_config::GuestConfig;

    use super::*;

    const HALF: RtLimit = RtLimit {
        runtime_us: 500_000,
        period_us: 1_000_000,
    };

    /// A run of a guest with these reservations, and the host CPU to which each is pinned.
    fn config(vcpus: &[(&str, Option<usize>)]) -> RunConfig {
        let mut guest = GuestConfig::new("db").with_cpus(vcpus.len());
        guest.reservations = vcpus.iter().map(|(text, _)| text.parse().ok()).collect();
        guest.host_cpus = vcpus
            .iter()
            .map(|(_, cpu)| cpu.map(|cpu| vec![cpu]))
            .collect();
        RunConfig {
            guests: vec![guest],
            executor_priority: ExecutorPriority::Fifo(1),
            ..RunConfig::default()
        }
    }

    #[test]
    fn a_warning_names_the_sysctl_and_the_value_that_is_enough() {
        let tight = config(&[("6ms/10ms", None)]);
        let text = warning(&tight, &[0], HALF).expect("a warning");
        assert!(text.starts_with("60 % of a host CPU is promised"), "{text}");
        assert!(
            text.contains("kernel.sched_rt_runtime_us to 600000 at least"),
            "{text}"
        );
        assert_eq!(warning(&tight, &[0, 1], HALF), None, "30 % of each");
        assert_eq!(warning(&config(&[("5ms/10ms", None)]), &[0], HALF), None);
        let ordinary = RunConfig {
            executor_priority: ExecutorPriority::Off,
            ..tight
        };
        assert_eq!(warning(&ordinary, &[0], HALF), None);
    }

    #[test]
    fn pinned_reservations_add_up_on_their_host_cpu() {
        let three = |cpu| config(&[("3ms/10ms", Some(2)), ("3ms/10ms", cpu)]);
        assert!(warning(&three(Some(2)), &[2, 3], HALF).is_some());
        assert_eq!(warning(&three(Some(3)), &[2, 3], HALF), None);
        assert_eq!(warning(&three(None), &[2, 3], HALF), None);
    }

    #[test]
    fn a_host_without_a_limit_has_nothing_to_warn_of() {
        assert_eq!(RtLimit::parse("-1\n", "1000000\n"), None);
        assert_eq!(RtLimit::parse("500000\n", "1000000\n"), Some(HALF));
        assert_eq!(RtLimit::parse("500000\n", "0\n"), None);
    }
}
