//! `baton top`: a live view of a running instance, through its control socket.
//!
//! | file | idea |
//! |---|---|
//! | `find.rs` | which instance is shown |
//! | `client.rs` | requests to the instance |
//! | `live.rs` | the live view: terminal, keys and signals |
//! | `app.rs` | what the keys do, and what is shown of two snapshots |
//! | `columns.rs` | which columns of the table fit, and how wide they are |
//! | `cpus.rs` | the lines about host CPUs |
//! | `hints.rs` | the line about where the guests' hints come from |
//! | `view.rs` | drawing, on a terminal or as plain text |
//! | `error.rs` | why there is no view |

mod app;
pub mod client;
mod columns;
mod cpus;
mod error;
mod find;
mod hints;
mod live;
mod once;
mod view;

pub use error::TopError;
pub use find::find;
pub use live::{SHORTEST, live};
pub use once::once;
