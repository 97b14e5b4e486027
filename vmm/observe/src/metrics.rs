//! `baton run --metrics WHERE`: counters of the running pool, for Prometheus and other readers of its formats.
//!
//! | file | idea |
//! |---|---|
//! | `tally.rs` | what is counted from the policy's events, under the pool's lock |
//! | `gauges.rs` | what an executor counts by itself |
//! | `pool_now.rs` | which host CPUs can be used, and how much of the reservations is in force |
//! | `snapshot.rs` | all of it, copied at one moment |
//! | `family.rs` | samples under one name |
//! | `families.rs` | the families of a snapshot |
//! | `open_metrics.rs`, `classic.rs` | families as text, in the two formats of Prometheus |
//! | `exposition.rs` | the text in the format that a client reads |
//! | `offer.rs` | the file or the server where that text is offered |

mod classic;
mod exposition;
mod families;
mod family;
mod gauges;
mod offer;
mod open_metrics;
mod pool_now;
mod snapshot;
mod tally;

pub use exposition::exposition;
pub use gauges::{ExecutorCounts, ExecutorGauges};
pub use offer::{Metrics, MetricsError, MetricsSource};
pub use pool_now::PoolNow;
pub use snapshot::{GuestNow, MetricsSnapshot};
pub use tally::{Tally, VcpuTally};
