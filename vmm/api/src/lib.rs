//! What the server and the clients of a pool's API exchange: the types of its JSON, version 1.
//!
//! | file | idea |
//! |---|---|
//! | `pool.rs` | the pool, and what the caller may do |
//! | `guest.rs` | a guest and its vCPUs |
//! | `change.rs` | a change of a guest |
//! | `event.rs` | what happened |
//! | `error.rs` | why a request was refused |
//!
//! Times in texts are written as in configurations (`5ms/10ms,hard`), times in numbers are nanoseconds.

mod change;
mod error;
mod event;
mod guest;
mod pool;

pub use change::{ChangeError, CheckedChange, GuestChange, ReservationObject, ReservationText};
pub use error::ApiError;
pub use event::{Event, EventKind, GuestOrder};
pub use guest::{Guest, GuestList, GuestState, Vcpu};
pub use pool::{Grant, HostCpu, PoolCpuChange, PoolStatus, Rights};

/// The version in the paths of the API. It grows when a field changes its meaning or is removed.
pub const VERSION: u32 = 1;
