//! Whether all parts of a pool still work, for the watchdog of systemd and for the guests, which leave a pool that hangs.
//!
//! A check kicks all executors, and the next one finds out whether each has had the policy decide since. The threads
//! of the link and of the API are asked in the same way. A part has hung if no check has found progress for some time.

use std::collections::BTreeMap;
use std::fmt;

use baton_host::executor::PoolReader;
use vcpu_sched::Ns;

/// A part that has made no progress for so long has hung, ns.
const HUNG: Ns = 5_000_000_000;

/// A part of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The executor of this host CPU.
    Executor(usize),
    /// The thread of the link.
    Link,
    /// The thread of the API.
    Api,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(cpu) => write!(f, "the executor of host CPU {cpu}"),
            Self::Link => f.write_str("the thread of the link"),
            Self::Api => f.write_str("the thread of the API"),
        }
    }
}

/// What a check finds of an executor.
#[derive(Clone, Copy, Debug)]
struct Executor {
    host_cpu: usize,
    /// Whether its host CPU cannot be used at the moment, so that it sleeps.
    is_away: bool,
    /// How often it has had the policy decide.
    decisions: u64,
}

/// What the checks have found.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// For the executor of each host CPU, how often it had decided when it had progressed last, and when that was
    /// found, ns.
    executors: BTreeMap<usize, (u64, Ns)>,
    link_at: Ns,
    api_at: Ns,
}

impl Watchdog {
    /// Nothing has hung at the time `now`, ns.
    #[must_use]
    pub fn new(now: Ns) -> Self {
        Self {
            executors: BTreeMap::new(),
            link_at: now,
            api_at: now,
        }
    }

    /// The first part of the pool that has hung at the time `now`, ns. `link` and `api`: whether these threads have
    /// done something since the last call.
    pub fn check(
        &mut self,
        reader: &PoolReader,
        (link, api): (bool, bool),
        now: Ns,
    ) -> Option<Part> {
        let cpus = reader.snapshot().cpus.into_iter();
        let executors = cpus
            .zip(reader.decisions())
            .map(|(cpu, (_, decisions))| Executor {
                host_cpu: cpu.cpu,
                is_away: cpu.away,
                decisions,
            });
        let executors: Vec<_> = executors.collect();
        reader.kick_all();
        self.found(&executors, (link, api), now)
    }

    fn found(
        &mut self,
        executors: &[Executor],
        (link, api): (bool, bool),
        now: Ns,
    ) -> Option<Part> {
        // An executor whose host CPU the pool has given up has nothing to do.
        let known = |cpu: usize| executors.iter().any(|executor| executor.host_cpu == cpu);
        self.executors.retain(|&cpu, _| known(cpu));
        for executor in executors {
            let first = (executor.decisions, now);
            let seen = self.executors.entry(executor.host_cpu).or_insert(first);
            if seen.0 != executor.decisions || executor.is_away {
                *seen = first;
            }
        }
        if link {
            self.link_at = now;
        }
        if api {
            self.api_at = now;
        }
        let has_hung = |at: Ns| now.saturating_sub(at) >= HUNG;
        let mut executors = self.executors.iter();
        let executor = executors.find(|(_, (_, at))| has_hung(*at));
        let executor = executor.map(|(&host_cpu, _)| Part::Executor(host_cpu));
        let link = has_hung(self.link_at).then_some(Part::Link);
        executor
            .or(link)
            .or_else(|| has_hung(self.api_at).then_some(Part::Api))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Ns = 1_000_000_000;

    fn executors(decisions: [u64; 2]) -> [Executor; 2] {
        [0, 1].map(|index| Executor {
            host_cpu: index + 4,
            is_away: false,
            decisions: decisions[index],
        })
    }

    #[test]
    fn an_executor_that_has_not_decided_for_some_seconds_has_hung_until_it_decides() {
        let mut watchdog = Watchdog::new(0);
        let works = (true, true);
        for second in 0..7 {
            let found = watchdog.found(&executors([second, 9]), works, second * SECOND);
            let expected = (second >= 5).then_some(Part::Executor(5));
            assert_eq!(found, expected, "{second}");
        }
        assert_eq!(watchdog.found(&executors([8, 10]), works, 7 * SECOND), None);
    }

    #[test]
    fn the_executor_of_a_host_cpu_that_is_away_has_not_hung() {
        let mut watchdog = Watchdog::new(0);
        for second in 0..20 {
            let mut executors = executors([second, 9]);
            executors[1].is_away = true;
            assert_eq!(
                watchdog.found(&executors, (true, true), second * SECOND),
                None
            );
        }
    }

    #[test]
    fn an_executor_that_has_ended_or_begun_anew_has_not_hung() {
        let mut watchdog = Watchdog::new(0);
        let works = (true, true);
        for second in 0..4 {
            assert_eq!(
                watchdog.found(&executors([second, 9]), works, second * SECOND),
                None
            );
        }
        assert_eq!(
            watchdog.found(&executors([4, 9])[..1], works, 4 * SECOND),
            None
        );
        for second in 5..9 {
            assert_eq!(
                watchdog.found(&executors([second, 9]), works, second * SECOND),
                None
            );
        }
    }

    #[test]
    fn a_thread_that_answers_now_and_then_works_and_one_that_does_not_has_hung() {
        let mut watchdog = Watchdog::new(0);
        for second in 0..20 {
            let now_and_then = second % 4 == 0;
            let found = watchdog.found(
                &executors([second, second]),
                (now_and_then, second < 10),
                second * SECOND,
            );
            assert_eq!(found, (second >= 14).then_some(Part::Api), "{second}");
        }
    }
}
