//! The API: HTTP/1.1 and JSON on a Unix socket.
//!
//! | file | idea |
//! |---|---|
//! | `server.rs` | the socket, and the thread that serves it |
//! | `limits.rs` | how many connections a user may have, and how long each may take |
//! | `routes.rs` | which request does what |
//! | `answers.rs` | answers, and work that may wait |
//! | `work_places.rs` | how many requests of each user may wait at once |
//! | `document.rs` | the description of the API |

mod answers;
mod document;
mod limits;
mod routes;
mod server;
mod work_places;

pub use document::document;
pub use server::{ApiServer, ApiServerError};
