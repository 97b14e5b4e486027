//! The commands that use the API: `baton list`, `show`, `set` and others.
//!
//! | file | idea |
//! |---|---|
//! | `text.rs` | pool, guests and events as text |
//! | `end.rs` | ending guests, and waiting for that |
//! | `start.rs` | starting the process of a guest |
//! | `guest_log.rs` | what that process prints |
//! | `pauses.rs` | how often a command looks whether something has come about |

mod end;
mod guest_log;
mod pauses;
mod start;
mod text;

pub use end::{EndError, stop};
pub use guest_log::{GuestLog, LogError};
pub use start::{StartError, start};
pub use text::{event, guest, guests, pool};
