//! Checks of a whole configuration: what flags and files cannot rule out one by one.
//!
//! | file | idea |
//! |---|---|
//! | `run.rs` | a run |
//! | `guest.rs` | one guest |
//! | `names.rs` | names of guests |
//! | `devices.rs` | devices that a guest or the host would take for one |
//! | `sched_mode.rs` | what each scheduler supports |

mod devices;
mod guest;
pub(crate) mod names;
mod run;
mod sched_mode;
