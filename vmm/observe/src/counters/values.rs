//! Values of counters by key, as the snapshot of the control socket has them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use vcpu_sched::Counters;

use super::table::{VCPU_COUNTERS, same};

/// A counter of the control socket's snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlKey(usize);

impl ControlKey {
    /// The counter whose key in the snapshot is `key`.
    ///
    /// # Panics
    /// If there is none. In a constant that is an error of the compiler.
    #[must_use]
    pub const fn of(key: &str) -> Self {
        let mut index = 0;
        while index < VCPU_COUNTERS.len() {
            if VCPU_COUNTERS[index].in_control && same(VCPU_COUNTERS[index].json, key) {
                return Self(index);
            }
            index += 1;
        }
        panic!("the snapshot has no counter of this key")
    }
}

/// The counters of a vCPU in the control socket's snapshot. In JSON they are fields of the vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlValues([u64; VCPU_COUNTERS.len()]);

impl ControlValues {
    /// The value of a counter: nanoseconds or a plain number, as its field says. 0 if the snapshot
    /// did not have it.
    #[must_use]
    pub fn get(&self, key: ControlKey) -> u64 {
        self.0[key.0]
    }

    /// The same with another value of one counter.
    #[must_use]
    pub fn with(mut self, key: ControlKey, value: u64) -> Self {
        self.0[key.0] = value;
        self
    }
}

impl Default for ControlValues {
    fn default() -> Self {
        Self([0; VCPU_COUNTERS.len()])
    }
}

impl From<&Counters> for ControlValues {
    fn from(counters: &Counters) -> Self {
        let mut values = Self::default();
        for (value, counter) in values.0.iter_mut().zip(&VCPU_COUNTERS) {
            if counter.in_control {
                *value = (counter.field.value)(counters);
            }
        }
        values
    }
}

impl Serialize for ControlValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (value, counter) in self.0.iter().zip(&VCPU_COUNTERS) {
            if counter.in_control {
                map.serialize_entry(counter.json, value)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ControlValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = ControlValues;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the counters of a vCPU")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ControlValues, A::Error> {
        let mut values = ControlValues::default();
        while let Some(key) = map.next_key::<String>()? {
            let known = VCPU_COUNTERS
                .iter()
                .position(|counter| counter.in_control && counter.json == key);
            match known {
                Some(index) => values.0[index] = map.next_value()?,
                // A field that is not a counter, or that a later version has added.
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_json_and_fields_of_later_versions_are_skipped() {
        const RAN: ControlKey = ControlKey::of("ran_ns");
        let counters = Counters {
            runtime_ns: 7,
            sleep_ns: 8,
            ..Counters::default()
        };
        let mut json = serde_json::to_value(ControlValues::from(&counters)).expect("plain data");
        assert_eq!(json["ran_ns"], 7);
        assert_eq!(json.get("sleep_ns"), None, "not in the snapshot");
        json["new"] = "text".into();
        let read: ControlValues = serde_json::from_value(json).expect("counters");
        assert_eq!(read.get(RAN), 7);
        assert_eq!(read, ControlValues::default().with(RAN, 7));
    }
}
