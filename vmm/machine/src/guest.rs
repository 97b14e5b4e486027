//! A guest: a KVM virtual machine with its memory and devices, and how it ended.
//!
//! | file | idea |
//! |---|---|
//! | `create.rs` | the steps by which a guest is created |
//! | `vm.rs` | the KVM virtual machine and its vCPUs before they run |
//! | `handle.rs` | a guest that can run |
//! | `host_resources.rs` | what a guest has of the host, and how that is released |
//! | `hints_in_force.rs` | where a guest's hints come from at the moment |
//! | `record.rs` | what stays of a guest when its virtual machine is gone |
//! | `scanned_kernel.rs` | a guest's kernel, as the thread that scans it sees it |
//! | `end.rs` | how a guest ended |
//! | `wiring.rs` | what the rest of the program gives a guest |
//! | `error.rs` | why a guest could not be created |

mod create;
mod end;
mod error;
pub(crate) mod handle;
mod hints_in_force;
mod host_resources;
mod record;
mod scanned_kernel;
mod vm;
mod wiring;

pub use end::GuestEnd;
pub use error::{GuestError, GuestErrorKind};
pub use handle::Guest;
pub use hints_in_force::HintsInForce;
pub use record::GuestRecord;
pub use wiring::GuestWiring;
