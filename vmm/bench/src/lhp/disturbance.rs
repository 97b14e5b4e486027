//! The part of the pool's CPU time that other processes took while a run was measured.
//!
//! It is the time for which the host CPUs of the pool were busy, from `/proc/stat`, without the CPU time of
//! this process and of the processes that it has started, which have ended. Steal time counts as busy if this host is a virtual machine itself. This measure means the
//! same under the host's scheduler, where the threads of the vCPUs delay each other, and under Baton's. The
//! kernel counts in ticks, so the result is coarse for runs shorter than some tenths of a second.

use baton_os::sys;

/// A run is disturbed if other processes took more than this of the pool's CPU time, per mille.
pub const LIMIT_PER_MILLE: u32 = 100;

/// A measurement that has begun.
#[derive(Debug)]
pub struct DisturbanceProbe {
    cpus: Vec<usize>,
    begin: CpuTimes,
}

#[derive(Clone, Copy, Debug)]
struct CpuTimes {
    at_ns: u64,
    /// Time for which the CPUs were busy; `None` if it cannot be read.
    busy_ns: Option<u64>,
    own_ns: u64,
}

impl DisturbanceProbe {
    /// Begins a measurement on `cpus`.
    #[must_use]
    pub fn start(cpus: &[usize]) -> Self {
        Self {
            cpus: cpus.to_vec(),
            begin: CpuTimes::now(cpus),
        }
    }

    /// The part of these CPUs' time that other processes took since then, per mille; `None` if it cannot be
    /// read.
    #[must_use]
    pub fn finish(self) -> Option<u32> {
        let end = CpuTimes::now(&self.cpus);
        let busy = end.busy_ns?.saturating_sub(self.begin.busy_ns?);
        let others = busy.saturating_sub(end.own_ns.saturating_sub(self.begin.own_ns));
        let wall = end.at_ns.saturating_sub(self.begin.at_ns);
        per_mille(others, wall.saturating_mul(self.cpus.len() as u64))
    }
}

fn per_mille(part: u64, whole: u64) -> Option<u32> {
    let share = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    Some(share.min(1000) as u32)
}

impl CpuTimes {
    fn now(cpus: &[usize]) -> Self {
        let tick_ns = sys::accounting_tick_ns();
        Self {
            at_ns: sys::monotonic_ns(),
            busy_ns: std::fs::read_to_string("/proc/stat")
                .ok()
                .and_then(|stat| busy_ticks(&stat, cpus))
                .map(|ticks| ticks.saturating_mul(tick_ns)),
            own_ns: sys::process_cpu_ns().saturating_add(sys::children_cpu_ns()),
        }
    }
}

/// Ticks for which `cpus` were busy, from `/proc/stat`: all columns but idle and iowait, and but the guest
/// columns, which user and nice contain. `None` if one of the CPUs is missing.
fn busy_ticks(stat: &str, cpus: &[usize]) -> Option<u64> {
    const USER_NICE_SYSTEM_IRQ_SOFTIRQ_STEAL: [usize; 6] = [0, 1, 2, 5, 6, 7];
    let mut found = 0;
    let mut sum = 0u64;
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let number = words
            .next()
            .and_then(|word| word.strip_prefix("cpu"))
            .and_then(|number| number.parse::<usize>().ok());
        if !number.is_some_and(|number| cpus.contains(&number)) {
            continue;
        }
        found += 1;
        let ticks: Vec<u64> = words.map(|word| word.parse().unwrap_or(0)).collect();
        for column in USER_NICE_SYSTEM_IRQ_SOFTIRQ_STEAL {
            sum = sum.saturating_add(ticks.get(column).copied().unwrap_or(0));
        }
    }
    (found == cpus.len()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  9 9 9 9 9 9 9 9 9 9\n\
                        cpu0 1 2 4 1000 2000 8 16 32 500 500\n\
                        cpu1 100 0 0 0 0 0 0 0 0 0\n\
                        cpu10 7 0 0 0 0 0 0 0 0 0\n\
                        intr 5\n";

    #[test]
    fn busy_is_all_but_idle_iowait_and_what_is_counted_twice() {
        assert_eq!(busy_ticks(STAT, &[0]), Some(63));
        assert_eq!(busy_ticks(STAT, &[0, 1]), Some(163));
        assert_eq!(busy_ticks(STAT, &[10]), Some(7));
    }

    #[test]
    fn busy_time_is_unknown_if_a_cpu_is_missing() {
        assert_eq!(busy_ticks(STAT, &[0, 2]), None);
        assert_eq!(busy_ticks("", &[0]), None);
    }

    #[test]
    fn shares_are_bounded() {
        assert_eq!(per_mille(1, 4), Some(250));
        assert_eq!(per_mille(5, 4), Some(1000));
        assert_eq!(per_mille(1, 0), None);
    }

    #[test]
    fn the_times_of_this_host_can_be_read() {
        let cpus = sys::affinity().expect("affinity");
        let probe = DisturbanceProbe::start(&cpus[..1]);
        assert!(probe.begin.busy_ns.is_some());
        assert!(probe.begin.own_ns > 0);
    }
}
