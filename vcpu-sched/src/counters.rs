//! What is counted for each vCPU. Each stretch of time has a donor that was charged and a vCPU that ran; both
//! are kept, and their sums over a guest agree.

use crate::ids::Ns;

/// Counters of one vCPU since it was added. Times in nanoseconds. [`Counters::FIELDS`] lists them with the
/// names that reports use for
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Run by this execution context, on whichever budget.
    pub runtime_ns: Ns,
    /// Charged to this scheduling context, whichever vCPU ran, and for what was spent elsewhere.
    pub charged_ns: Ns,
    /// Part of `charged_ns` in which no vCPU ran: CPU time that other threads spent for this one.
    pub elsewhere_ns: Ns,
    /// Part of `elsewhere_ns` that its sleeps and its wake-ups took.
    pub sleep_ns: Ns,
    /// Part of `elsewhere_ns` that workers of its guest used, the threads of devices.
    pub devices_ns: Ns,
    /// Part of `sleep_ns` that was taken from more urgent vCPUs of other guests.
    pub disturbing_ns: Ns,
    /// Part of `charged_ns` in which another vCPU ran.
    pub donated_ns: Ns,
    /// Part of `runtime_ns` that was charged to another vCPU.
    pub received_ns: Ns,
    /// Runnable and not running, while its scheduling context had a budget: it waited for a CPU.
    pub waited_ns: Ns,
    /// Runnable and not running, while its scheduling context was throttled: it waited for a budget.
    pub throttled_wait_ns: Ns,
    /// Of the time on a CPU, what the host gave to others ([`Scheduler::host_took`]).
    ///
    /// [`Scheduler::host_took`]: crate::Scheduler::host_took
    pub host_steal_ns: Ns,
    /// Throttled by a hard reservation, whether or not it could have run. Counts throttlings that have ended.
    pub throttled_ns: Ns,
    /// Its reservation was reduced because host CPUs were offline, in times that have ended.
    pub reduced_ns: Ns,
    /// How often it was throttled.
    pub throttles: u64,
    /// How often it was put on a CPU that ran another vCPU, or nothing, before.
    pub switches: u64,
    /// How often it was put on another CPU than the one on which it ran last.
    pub migrations: u64,
    /// How often it was taken off a CPU against its will.
    pub preemptions: u64,
    /// Part of `preemptions` in which it held a lock, by its own account.
    pub holder_preemptions: u64,
    /// How often it was put on a CPU on another vCPU's budget.
    pub proxied: u64,
    /// How often it ran because it was suspected to hold a lock.
    pub suspected: u64,
    /// Part of `suspected` at whose end it held nothing.
    pub suspect_releases: u64,
    /// The longest chain from a donor to this vCPU, in edges.
    pub longest_chain: u32,
    /// Edges of this vCPU that were dropped because they led into a circle of at most
    /// [`crate::MAX_CHAIN`] / 2 edges, none of them known to be stale.
    pub cycles: u64,
    /// Edges of this vCPU that were dropped because the chain is longer than is followed.
    pub long_chains: u64,
    /// Edges of this vCPU that were dropped because their holder had moved on.
    pub stale_edges: u64,
    /// How often its preemption was deferred.
    pub deferrals: u64,
    /// Deferrals that ran to their end without a release.
    pub deferrals_expired: u64,
    /// Run during deferrals: debt, charged like all the rest.
    pub deferral_debt_ns: Ns,
    /// Budgets of its reservation that became usable, one for each period in which it could run.
    pub promised_ns: Ns,
    /// Part of `promised_ns` that was charged by the deadline, whichever vCPU of its guest ran.
    pub delivered_ns: Ns,
    /// Part of `promised_ns` that the host did not leave it: other programs, or host CPUs that were offline.
    pub lost_to_host_ns: Ns,
    /// Part of `promised_ns` that was not served by its deadline because the CPUs served others.
    pub lost_to_overcommit_ns: Ns,
    /// Part of `promised_ns` that it did not use: it slept, was paused, or ran on another vCPU's budget.
    pub undemanded_ns: Ns,
    /// Deadlines that passed with budget left, one for each period in which its budget did not come.
    pub deadline_misses: u64,
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterUnit {
    /// Time, ns. Metrics report it in seconds.
    Nanoseconds,
    /// How often something happened.
    Times,
    /// The largest number of edges.
    MaxEdges,
}

/// One counter, as reports need it.
#[derive(Clone, Copy, Debug)]
pub struct CounterField {
    /// Its name in [`Counters`].
    pub name: &'static str,
    /// Its name in the JSON summary of a run, if it is there.
    pub json: Option<&'static str>,
    /// Its name in the metrics, without the prefix `baton_vcpu_` and without unit and `_total`, if it is
    /// there.
    pub metric: Option<&'static str>,
    /// What it counts, in one line: the help text of the metric.
    pub help: &'static str,
    /// Its unit.
    pub unit: CounterUnit,
    /// Its value.
    pub value: fn(&Counters) -> u64,
    /// Gives it another value. One that is too large for it becomes the largest.
    pub set: fn(&mut Counters, u64),
    /// Adds its value in the second to the first.
    add: fn(&mut Counters, &Counters),
}

/// `$sum` and `$more`, two values with the unit `$unit`, taken together.
macro_rules! together {
    (MaxEdges, $sum:expr, $more:expr) => {
        $sum.max($more)
    };
    ($unit:ident, $sum:expr, $more:expr) => {
        $sum.saturating_add($more)
    };
}

/// `$value` as a value with the unit `$unit`.
macro_rules! held {
    (MaxEdges, $value:expr) => {
        u32::try_from($value).unwrap_or(u32::MAX)
    };
    ($unit:ident, $value:expr) => {
        $value
    };
}

macro_rules! fields {
    ($($name:ident: $unit:ident, $json:expr, $metric:expr, $help:literal;)*) => {
        &[$(CounterField {
            name: stringify!($name),
            json: $json,
            metric: $metric,
            help: $help,
            unit: CounterUnit::$unit,
            value: |counters| counters.$name.into(),
            set: |counters, value| counters.$name = held!($unit, value),
            add: |sum, more| sum.$name = together!($unit, sum.$name, more.$name),
        },)*]
    };
}

impl Counters {
    /// Adds what was counted for the same vCPU at another time.
    pub fn add(&mut self, more: &Self) {
        for field in Self::FIELDS {
            (field.add)(self, more);
        }
    }

    /// All counters, in the order of the fields. This is the one table of their names: JSON, metrics and
    /// documents use the same.
    #[rustfmt::skip]
    pub const FIELDS: &'static [CounterField] = fields! {
        runtime_ns: Nanoseconds, Some("ran_ns"), Some("run"),
            "CPU time that the vCPU ran, on any budget";
        charged_ns: Nanoseconds, Some("charged_ns"), Some("charged"),
            "CPU time charged to the vCPU's budget, whichever vCPU ran";
        elsewhere_ns: Nanoseconds, Some("elsewhere_ns"), Some("elsewhere"),
            "Part of the charged time that other threads spent for the vCPU";
        sleep_ns: Nanoseconds, Some("sleep_ns"), Some("sleep"),
            "Part of the time elsewhere that its sleeps and wake-ups took";
        devices_ns: Nanoseconds, Some("devices_ns"), Some("devices"),
            "Part of the time elsewhere that devices of its guest took";
        disturbing_ns: Nanoseconds, Some("disturbing_ns"), Some("disturbing"),
            "Part of the time of its sleeps that was taken from more urgent vCPUs";
        donated_ns: Nanoseconds, Some("donated_ns"), Some("donated"),
            "Part of the charged time in which another vCPU ran";
        received_ns: Nanoseconds, Some("received_ns"), Some("received"),
            "Part of the run time on another vCPU's budget";
        waited_ns: Nanoseconds, Some("waited_ns"), Some("runnable_wait"),
            "Time runnable, with a budget, and not running";
        throttled_wait_ns: Nanoseconds, Some("throttled_wait_ns"), Some("throttled_wait"),
            "Time runnable and without a budget";
        host_steal_ns: Nanoseconds, Some("host_steal_ns"), Some("host_steal"),
            "Part of the time on a CPU that the host gave to others";
        throttled_ns: Nanoseconds, Some("throttled_ns"), Some("throttled"),
            "Time without budget, in throttlings that have ended";
        reduced_ns: Nanoseconds, Some("reduced_ns"), None,
            "Time in which the reservation was reduced because host CPUs were offline";
        throttles: Times, None, Some("throttles"),
            "Times its budget ran out";
        switches: Times, Some("switches"), Some("switches"),
            "Times put on a CPU that ran something else before";
        migrations: Times, Some("migrations"), Some("migrations"),
            "Times put on another CPU than it ran on before";
        preemptions: Times, Some("preemptions"), Some("preemptions"),
            "Times taken off a CPU against its will";
        holder_preemptions: Times, Some("holder_preemptions"), Some("holder_preemptions"),
            "Preemptions while it held a lock";
        proxied: Times, Some("proxied"), Some("proxied"),
            "Times put on a CPU on another vCPU's budget";
        suspected: Times, Some("suspected"), Some("suspected"),
            "Times it ran because it was suspected to hold a lock";
        suspect_releases: Times, Some("suspect_releases"), Some("suspect_releases"),
            "Times it was suspected to hold a lock, ran and held nothing at the end";
        longest_chain: MaxEdges, Some("longest_chain"), None,
            "Longest chain from a donor to the vCPU";
        cycles: Times, Some("cycles"), Some("wait_cycles"),
            "Waits dropped because they led into a circle";
        long_chains: Times, Some("long_chains"), Some("long_chains"),
            "Waits dropped because the chain was longer than is followed";
        stale_edges: Times, None, Some("stale_waits"),
            "Waits dropped because their holder had moved on";
        deferrals: Times, Some("deferrals"), Some("deferrals"),
            "Preemptions put off because it held a lock";
        deferrals_expired: Times, Some("deferrals_expired"), Some("deferrals_expired"),
            "Deferrals that were used to their end";
        deferral_debt_ns: Nanoseconds, Some("deferred_ns"), Some("deferral_debt"),
            "CPU time of deferrals beyond the budget or slice";
        promised_ns: Nanoseconds, Some("promised_ns"), Some("promised"),
            "Budgets of its reservation that became usable";
        delivered_ns: Nanoseconds, Some("delivered_ns"), Some("delivered"),
            "Part of the promised time that was charged by the deadline";
        lost_to_host_ns: Nanoseconds, Some("lost_to_host_ns"), Some("lost_to_host"),
            "Part of the promised time that the host took";
        lost_to_overcommit_ns: Nanoseconds, Some("lost_to_overcommit_ns"), Some("lost_to_overcommit"),
            "Part of the promised time that the CPUs gave to other vCPUs";
        undemanded_ns: Nanoseconds, Some("undemanded_ns"), Some("undemanded"),
            "Part of the promised time that it did not use";
        deadline_misses: Times, Some("deadline_misses"), Some("deadline_misses"),
            "Deadlines that passed with budget left, one for each period";
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_counter_once_and_in_order() {
        let debug = format!("{:?}", Counters::default());
        let fields = debug
            .split([' ', '{'])
            .filter_map(|word| word.strip_suffix(':'));
        let table = Counters::FIELDS.iter().map(|field| field.name);
        assert!(fields.eq(table), "{debug}");
    }

    #[test]
    fn every_counter_has_the_value_that_it_was_given_and_no_other_has() {
        for field in Counters::FIELDS {
            let mut counters = Counters::default();
            (field.set)(&mut counters, 7);
            for other in Counters::FIELDS {
                let expected = if other.name == field.name { 7 } else { 0 };
                assert_eq!((other.value)(&counters), expected, "{}", field.name);
            }
            (field.set)(&mut counters, u64::MAX);
            assert!((field.value)(&counters) >= u64::from(u32::MAX));
        }
    }

    #[test]
    fn times_and_counts_are_added_and_of_the_longest_the_longer_stays() {
        let one = Counters {
            runtime_ns: 5,
            proxied: 2,
            longest_chain: 3,
            ..Counters::default()
        };
        let mut sum = Counters {
            runtime_ns: 7,
            longest_chain: 2,
            deadline_misses: 1,
            ..Counters::default()
        };
        sum.add(&one);
        let expected = Counters {
            runtime_ns: 12,
            proxied: 2,
            longest_chain: 3,
            deadline_misses: 1,
            ..Counters::default()
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn each_metric_of_the_table_is_documented_with_its_unit() {
        let page = include_str!("../../docs/metrics.md");
        for field in Counters::FIELDS {
            let unit = match field.unit {
                CounterUnit::Nanoseconds => "_seconds_total",
                CounterUnit::Times | CounterUnit::MaxEdges => "_total",
            };
            if let Some(metric) = field.metric {
                let name = format!("`baton_vcpu_{metric}{unit}`");
                assert!(page.contains(&name), "{name}");
            }
        }
    }
}
