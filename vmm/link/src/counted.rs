//! What the pool has counted for the vCPUs of a guest, as a message has it: by the names of
//! [`Counters::FIELDS`], so that a pool and a guest of different versions understand each other.

use serde::{Deserialize, Serialize};
use vcpu_sched::Counters;

/// The counters of all vCPUs of a guest. The names are there once, so that a message has room for many vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedVcpus {
    names: Vec<String>,
    /// For each vCPU, in order, the values in the order of the names.
    vcpus: Vec<Vec<u64>>,
}

impl CountedVcpus {
    /// Those of the vCPUs of `counters`, in order.
    #[must_use]
    pub fn new(counters: &[Counters]) -> Self {
        let fields = || Counters::FIELDS.iter();
        let values = |counters: &Counters| fields().map(|field| (field.value)(counters)).collect();
        Self {
            names: fields().map(|field| field.name.to_owned()).collect(),
            vcpus: counters.iter().map(values).collect(),
        }
    }

    /// The counters of the vCPUs, in order. What another version counts, and this one does not, is left out.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        let known = |name: &String| Counters::FIELDS.iter().find(|field| field.name == *name);
        let fields: Vec<_> = self.names.iter().map(known).collect();
        let counters = |values: &Vec<u64>| {
            let mut counters = Counters::default();
            for (field, value) in fields.iter().zip(values) {
                if let Some(field) = field {
                    (field.set)(&mut counters, *value);
                }
            }
            counters
        };
        self.vcpus.iter().map(counters).collect()
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
        let counters = [
            Counters {
                runtime_ns: u64::MAX,
                longest_chain: 3,
                ..Counters::default()
            },
            Counters {
                deadline_misses: 1,
                ..Counters::default()
            },
        ];
        let text = serde_json::to_string(&CountedVcpus::new(&counters)).expect("plain data");
        let read: CountedVcpus = serde_json::from_str(&text).expect("counters");
        assert_eq!(read.counters(), counters);
        let later: CountedVcpus = serde_json::from_str(&text.replace("runtime_ns", "of_later"))
            .expect("counters of another version");
        assert_eq!(later.counters()[0].runtime_ns, 0);
        assert_eq!(later.counters()[0].longest_chain, 3);
    }

    #[test]
    fn a_message_has_room_for_all_vcpus_of_a_guest_after_a_day() {
        let mut counters = Counters::default();
        for field in &Counters::FIELDS[..20] {
            (field.set)(&mut counters, 86_400_000_000_000);
        }
        let counted = CountedVcpus::new(&vec![counters; MAX_VCPUS as usize]);
        let message = serde_json::to_vec(&PoolMessage::Counted(counted)).expect("plain data");
        assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
    }
}
