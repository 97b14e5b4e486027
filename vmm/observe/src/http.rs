//! The server behind metrics and the control socket.
//!
//! | file | idea |
//! |---|---|
//! | `server.rs` | one connection at a time, within bounds |
//! | `reply.rs` | the answer to a request |
//! | `request.rs` | what a request asks for |
//! | `waiter.rs` | waiting for a request or for the end |

mod reply;
mod request;
mod server;
mod waiter;

pub(crate) use reply::HttpPage;
pub(crate) use request::HttpRequest;
pub(crate) use server::HttpServer;
pub(crate) use waiter::RequestWaiter;
