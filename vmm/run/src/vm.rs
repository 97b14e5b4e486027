//! `baton vm`: one guest in a process of its own, whose vCPUs the pool of another process runs.
//!
//! | file | idea |
//! |---|---|
//! | `process.rs` | the process from start to end |
//! | `sandbox.rs` | what the process can reach while its guest runs |
//! | `beside_vcpus.rs` | the host CPUs of the threads that are none of the vCPUs' |
//! | `claims.rs` | what the guest requests of the pool |
//! | `pool_path.rs` | where the pool listens |
//! | `pool_client.rs` | joining the pool, obeying its orders, and joining again when it was gone |
//! | `reports.rs` | what the pool is told of the guest |
//! | `beat_watch.rs` | whether the pool works |
//! | `pool_error.rs` | why a guest has not joined |

mod beat_watch;
mod beside_vcpus;
mod claims;
mod pool_client;
pub(crate) mod pool_error;
mod pool_path;
mod process;
mod reports;
mod sandbox;

pub use pool_error::PoolError;
pub use process::vm;
pub use sandbox::enter_sandbox;
