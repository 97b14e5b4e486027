//! The pool as a service: `baton pool`, the processes that join it, its API, and the commands that use the API.
//!
//! | module | idea |
//! |---|---|
//! | [`settings`], [`grants`], [`places`] | what is configured: host CPUs, who may do what, where the sockets are |
//! | [`service`], `join`, `change`, `status`, `processes`, `failure`, `fitting` | what callers may do, and what follows |
//! | [`host_cpus`], `pool_cpus`, `other_cpus` | the host CPUs of the pool, their owner and their change |
//! | [`names`], `notice_limit`, `leads` | whose a guest's name is; how many lines of the log somebody may cause; what is owed by the next guest of a user |
//! | [`process_pool`] | what the executors do with guests of other processes |
//! | [`link_server`] | the socket at which guests' processes join |
//! | [`api_server`], [`events`] | HTTP and JSON, and the stream of events |
//! | [`daemon`], [`log`], `watchdog` | `baton pool` from start to end |
//! | [`client`], [`verbs`] | the commands that use the API |

pub mod api_server;
mod change;
pub mod client;
pub mod daemon;
pub mod events;
mod failure;
mod fitting;
pub mod grants;
pub mod host_cpus;
mod join;
mod leads;
pub mod link_server;
pub mod log;
pub mod names;
mod notice_limit;
mod other_cpus;
pub mod places;
mod pool_cpus;
pub mod process_pool;
mod processes;
pub mod service;
pub mod settings;
mod status;
pub mod verbs;
mod watchdog;

pub use failure::{Failure, FailureKind};
