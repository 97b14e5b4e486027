//! What a run was like: the numbers at its end, as a table ([`text`]) or as JSON.
//!
//! | file | idea |
//! |---|---|
//! | `run_summary.rs` | the whole run |
//! | `guest_summary.rs` | one guest, and CPU time spent for it beside the runs of its vCPUs |
//! | `vcpu_summary.rs` | one vCPU: its counters, and what it reported |
//! | `workload.rs` | what the vCPUs of a guest report together |
//! | `cpu_account.rs` | where the CPU time of the process went |
//! | `delivery.rs` | which reservations were not delivered |
//! | `text.rs`, `table.rs` | the summary as text |
//! | `moment.rs` | the timeline of one moment, as text |

mod cpu_account;
mod delivery;
mod guest_summary;
mod moment;
mod run_summary;
mod table;
pub mod text;
mod vcpu_summary;
mod workload;

pub use cpu_account::{CpuAccount, Unassigned};
pub use delivery::undelivered;
pub use guest_summary::{Elsewhere, GuestSummary};
pub use moment::moment;
pub use run_summary::RunSummary;
pub use vcpu_summary::{VcpuSummary, result_name};
pub use workload::Workload;
