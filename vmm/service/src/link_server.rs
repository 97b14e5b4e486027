//! The socket at which guests' processes join, and the thread that serves all of them.
//!
//! | file | idea |
//! |---|---|
//! | `thread.rs` | the thread: waits for connections, messages, wakes and failures |
//! | `acceptor.rs` | accepting connections, also when no file is left |
//! | `clients.rs` | the processes that are connected, and how many a user may have |
//! | `client.rs` | one process: what it may send, and when |
//! | `file_budget.rs` | how many files processes may make the pool open |
//! | `failures.rs` | what executors report |
//! | `wake_limit.rs` | how often a process may report wakes of which there are none |

mod acceptor;
mod client;
mod clients;
mod failures;
mod file_budget;
mod thread;
mod wake_limit;

pub use thread::{LinkServer, LinkServerError};
