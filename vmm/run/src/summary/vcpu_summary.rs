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
use serde::{Serialize, Serializer};

/// The numbers of one vCPU.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VcpuSummary {
    /// What was counted for it.
    #[serde(flatten)]
    pub account: VcpuAccount,
    /// What it reported itself, by key.
    #[serde(serialize_with = "named_results")]
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

/// The name of a result in JSON.
#[must_use]
pub fn result_name(key: u32) -> String {
    match key {
        RESULT_ACQUISITIONS => "acquisitions".to_owned(),
        RESULT_WAIT_MAX_NS => "wait_max_ns".to_owned(),
        RESULT_WAIT_SUM_NS => "wait_sum_ns".to_owned(),
        RESULT_ELAPSED_NS => "elapsed_ns".to_owned(),
        RESULT_COUNTER => "counter".to_owned(),
        RESULT_ITERATIONS => "iterations".to_owned(),
        RESULT_WAIT_RINGS => "wait_rings".to_owned(),
        RESULT_RELEASE_RINGS => "release_rings".to_owned(),
        RESULT_SKIPPED => "skipped".to_owned(),
        RESULT_TASK_PREEMPTIONS => "task_preemptions".to_owned(),
        key if (RESULT_WAIT_BUCKET..RESULT_WAIT_BUCKET + BUCKETS as u32).contains(&key) => {
            format!("wait_bucket_{}", key - RESULT_WAIT_BUCKET)
        }
        key => format!("result_{key}"),
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

#[cfg(test)]
mod tests {
    use super::*;
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
