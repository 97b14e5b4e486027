//! Observers of a pool: they record what the policy decides, and show it.
//!
//! | module | for |
//! |---|---|
//! | [`trace`] | `--trace`: every decision, in Perfetto's format |
//! | [`metrics`] | `--metrics`: counters for Prometheus |
//! | [`control`] | `baton top`: the state of the pool now |
//! | `http` | the server behind both |
//! | [`recorder`], [`timeline`] | `--timeline`: the decisions around one moment, drawn as text |

pub mod control;
mod http;
pub mod metrics;
pub mod recorder;
pub mod timeline;
pub mod trace;
