//! The counters of a vCPU: one table, from which the columns of the summary, its JSON, the metrics and the
//! control socket are made. `docs/metrics.md` and `docs/control.md` are held against it by tests.
//!
//! | file | idea |
//! |---|---|
//! | `fields.rs` | what the policy counts: name, description, unit, value |
//! | `table.rs` | under which names the outputs show it |
//! | `values.rs` | values by key, as they travel in the JSON of the control socket |
//!
//! To add a counter, count it in the policy, add a field to `fields.rs`, and name it in `table.rs` for each
//! output that is to show it.

mod fields;
mod table;
mod values;

pub use fields::{CounterField, FIELDS, Unit};
pub use table::{VCPU_COUNTERS, VcpuCounter, serialize_for_summary};
pub use values::{ControlKey, ControlValues};
