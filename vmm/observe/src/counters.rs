//! The counters of a vCPU as the outputs show them. [`Counters::FIELDS`](vcpu_sched::Counters::FIELDS) is the table of
//! their names, descriptions, units and values; the metrics list it as it is.
//!
//! | file | idea |
//! |---|---|
//! | `table.rs` | order and columns of the summary, and which counters the control socket has |
//! | `values.rs` | values by key, as they travel in the JSON of the control socket |
//!
//! To add a counter, count it in the policy and add it to the table there. A counter with a name for metrics is in
//! the metrics then. If it has a name for JSON, it needs a row in `table.rs` too. Tests hold the tables against each
//! other and against `docs/metrics.md` and `docs/control.md`.

mod table;
mod values;

pub use table::{
    VCPU_COUNTERS, VcpuCounter, deserialize_from_summary, metric_name, serialize_for_summary,
};
pub use values::{ControlKey, ControlValues};
