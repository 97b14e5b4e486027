//! What the pool has counted for a vCPU, as a message has it: by the names of
//! [`Counters::FIELDS`], so that a pool and a guest of different versions understand each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vcpu_sched::Counters;

/// The counters of one vCPU. Those that are 0 are left out, so that a message has room for many vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedVcpu(BTreeMap<String, u64>);

impl From<&Counters> for CountedVcpu {
    fn from(counters: &Counters) -> Self {
        let all = Counters::FIELDS.iter();
        let named = all.map(|field| (field.name.to_owned(), (field.value)(counters)));
        Self(named.filter(|(_, value)| *value > 0).collect())
    }
}

impl From<&CountedVcpu> for Counters {
    /// What another version counts, and this one does not, is left out.
    fn from(counted: &CountedVcpu) -> Self {
        let mut counters = Self::default();
        for field in Self::FIELDS {
            if let Some(value) = counted.0.get(field.name) {
                (field.set)(&mut counters, *value);
            }
        }
        counters
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::MAX_MESSAGE;
    use crate::message::PoolMessage;
    use crate::pages::MAX_VCPUS;

    #[test]
    fn counters_arrive_as_they_were_and_unknown_ones_are_left_out() {
        let counters = Counters {
            runtime_ns: u64::MAX,
            longest_chain: 3,
            deadline_misses: 1,
            ..Counters::default()
        };
        let text = serde_json::to_string(&CountedVcpu::from(&counters)).expect("plain data");
        let text = text.replace('{', "{\"of_a_later_version\":5,");
        let read: CountedVcpu = serde_json::from_str(&text).expect("counters");
        assert_eq!(Counters::from(&read), counters);
    }

    #[test]
    fn a_message_has_room_for_all_vcpus_of_a_guest_after_a_day() {
        let mut counters = Counters::default();
        for field in &Counters::FIELDS[..20] {
            (field.set)(&mut counters, 86_400_000_000_000);
        }
        let counted = vec![CountedVcpu::from(&counters); MAX_VCPUS as usize];
        let message = serde_json::to_vec(&PoolMessage::Counted(counted)).expect("plain data");
        assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
    }
}
