//! The numbers of one vCPU.

use std::collections::BTreeMap;

use baton_abi::testdev::{
    RESULT_ACQUISITIONS, RESULT_COUNTER, RESULT_ELAPSED_NS, RESULT_ITERATIONS,
    RESULT_RELEASE_RINGS, RESULT_SKIPPED, RESULT_TASK_PREEMPTIONS, RESULT_WAIT_BUCKET,
    RESULT_WAIT_MAX_NS, RESULT_WAIT_RINGS, RESULT_WAIT_SUM_NS,
};
use baton_abi::wait_buckets::BUCKETS;
use baton_host::runner::VcpuAccount;
use baton_machine::clock::GuestClock;
use baton_machine::testdev::{Section, VcpuResults};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The numbers of one vCPU.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VcpuSummary {
    /// What was counted for it.
    #[serde(flatten)]
    pub account: VcpuAccount,
    /// What it reported itself, by key.
    #[serde(serialize_with = "named_results", deserialize_with = "keyed_results")]
    pub results: BTreeMap<u32, u64>,
    /// The critical sections that it logged.
    #[serde(skip)]
    pub sections: Vec<Section>,
    /// Reports that were dropped because there were too many.
    pub results_dropped: u64,
}

impl VcpuSummary {
    /// The numbers of a vCPU that reported `results`. `clock` is the clock of its guest.
    #[must_use]
    pub fn new(account: VcpuAccount, mut results: VcpuResults, clock: &GuestClock) -> Self {
        Self {
            account,
            sections: results.take_sections(clock),
            results: results.values,
            results_dropped: results.dropped,
        }
    }
}

/// The results that have names of their own in JSON.
const NAMES: [(u32, &str); 10] = [
    (RESULT_ACQUISITIONS, "acquisitions"),
    (RESULT_WAIT_MAX_NS, "wait_max_ns"),
    (RESULT_WAIT_SUM_NS, "wait_sum_ns"),
    (RESULT_ELAPSED_NS, "elapsed_ns"),
    (RESULT_COUNTER, "counter"),
    (RESULT_ITERATIONS, "iterations"),
    (RESULT_WAIT_RINGS, "wait_rings"),
    (RESULT_RELEASE_RINGS, "release_rings"),
    (RESULT_SKIPPED, "skipped"),
    (RESULT_TASK_PREEMPTIONS, "task_preemptions"),
];
/// What begins the name of a bucket of waits, and of any other result. Its number follows.
const BUCKET: &str = "wait_bucket_";
const OTHER: &str = "result_";

/// The name of a result in JSON.
#[must_use]
pub fn result_name(key: u32) -> String {
    if let Some((_, name)) = NAMES.iter().find(|(named, _)| *named == key) {
        return (*name).to_owned();
    }
    match key.checked_sub(RESULT_WAIT_BUCKET) {
        Some(bucket) if bucket < BUCKETS as u32 => format!("{BUCKET}{bucket}"),
        _ => format!("{OTHER}{key}"),
    }
}

/// The result with this name; `None`: there is none.
fn result_key(name: &str) -> Option<u32> {
    if let Some((key, _)) = NAMES.iter().find(|(_, named)| *named == name) {
        return Some(*key);
    }
    match name.strip_prefix(BUCKET) {
        Some(bucket) => RESULT_WAIT_BUCKET.checked_add(bucket.parse().ok()?),
        None => name.strip_prefix(OTHER)?.parse().ok(),
    }
}

fn named_results<S: Serializer>(
    results: &BTreeMap<u32, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        results
            .iter()
            .map(|(key, value)| (result_name(*key), value)),
    )
}

/// Results without a name that is known here are left out.
fn keyed_results<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<u32, u64>, D::Error> {
    let named = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let keyed = named
        .into_iter()
        .filter_map(|(name, value)| Some((result_key(&name)?, value)));
    Ok(keyed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_machine::ExitCounts;
    use vcpu_sched::Counters;

    /// The keys of a JSON object, in their order.
    fn keys(json: &str) -> Vec<&str> {
        let keys = json
            .split(['{', ','])
            .filter_map(|part| part.split_once(':'));
        keys.map(|(key, _)| key.trim_matches('"')).collect()
    }

    #[test]
    fn json_has_the_documented_counters_of_a_vcpu_in_their_order() {
        let account = VcpuAccount {
            counters: Counters {
                runtime_ns: 3,
                received_ns: 5,
                longest_chain: 2,
                ..Counters::default()
            },
            ..VcpuAccount::default()
        };
        let json = serde_json::to_string(&account).expect("plain data");
        let expected = "ran_ns charged_ns elsewhere_ns sleep_ns devices_ns disturbing_ns donated_ns received_ns \
                        waited_ns throttled_wait_ns host_steal_ns preemptions holder_preemptions proxied \
                        proxied_ns suspected suspect_releases longest_chain cycles long_chains deferrals \
                        deferrals_expired deferred_ns promised_ns delivered_ns lost_to_host_ns \
                        lost_to_overcommit_ns undemanded_ns deadline_misses \
                        throttled_ns reduced_ns switches migrations";
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(keys(&json)[..expected.len()], expected);
        for part in [
            "\"ran_ns\":3",
            "\"proxied_ns\":5",
            "\"longest_chain\":2",
            "\"exits\":{",
        ] {
            assert!(json.contains(part), "{part} in {json}");
        }
    }

    #[test]
    fn a_vcpu_is_read_from_json_as_it_was_written() {
        let vcpu = VcpuSummary {
            account: VcpuAccount {
                counters: Counters {
                    runtime_ns: 3,
                    received_ns: 5,
                    longest_chain: 2,
                    ..Counters::default()
                },
                exits: ExitCounts {
                    doorbells: 7,
                    ..ExitCounts::default()
                },
            },
            results: (0..0x800).map(|key| (key, u64::from(key) + 1)).collect(),
            results_dropped: 4,
            ..VcpuSummary::default()
        };
        let json = serde_json::to_string(&vcpu).expect("plain data");
        let read: VcpuSummary = serde_json::from_str(&json).expect("a vCPU");
        assert_eq!(read.account.counters, vcpu.account.counters);
        assert_eq!(read.account.exits, vcpu.account.exits);
        assert_eq!(read.results, vcpu.results);
        assert_eq!(read.results_dropped, 4);
    }

    #[test]
    fn json_names_the_results() {
        let vcpu = VcpuSummary {
            results: [(RESULT_COUNTER, 5), (RESULT_WAIT_BUCKET + 527, 1), (77, 2)].into(),
            ..VcpuSummary::default()
        };
        let json = serde_json::to_value(vcpu).expect("json");
        assert_eq!(json["results"]["counter"], 5);
        assert_eq!(json["results"]["wait_bucket_527"], 1);
        assert_eq!(json["results"]["result_77"], 2);
    }
}
