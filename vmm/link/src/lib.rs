//! The link between the process of a pool and the process of a guest.
//!
//! The pool's executor hands a vCPU to the vCPU's thread and waits until the thread gives the vCPU back, as
//! with vCPU threads in one process. Here the hand-over goes through a page that both processes share, and
//! a futex. Joining, leaving and changes go over a control socket.
//!
//! ```text
//!   pool's process                                     guest's process
//!   ──────────────                                     ───────────────
//!   executor ── PoolSide::give ───> page, futex ─────> vCPU's thread: ThreadSide::wait, KVM_RUN
//!            <─ PoolSide::wait ──── page, futex <───── ThreadSide::answer
//!   others ──── VcpuKicker::kick ─> page, signal ────> the same thread, out of KVM_RUN
//!   control ─── Connection ───────> socket <────────── Connection: join, change, leave
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `page`, `number`, [`command`], [`answer`], `hint_words` | the words of the page, and what they mean |
//! | [`pages`] | the memory file with the pages of a guest |
//! | [`pool_side`], [`thread_side`] | who owns the vCPU, from each side |
//! | [`answer_watch`] | waiting for several vCPUs that sleep |
//! | `hangup`, `kick_record` | a peer that is gone; kicks |
//! | [`foreign_process`], [`foreign_clock`], [`kick_signal`] | the guest's threads as the kernel sees them |
//! | [`message`], [`counted`], [`connection`], [`join`], [`rate_limit`], [`wake_file`] | the control socket |
//!
//! # Trust
//! The pool believes the kernel about time, and takes the page as statements of a guest about itself.
//! Whatever stands there is checked and can only choose which of that guest's vCPUs runs on that guest's
//! budgets. A process that breaks the protocol, or whose thread does not come back, yields a [`LinkError`],
//! and the pool stops it.

pub mod answer;
pub mod answer_watch;
pub mod command;
pub mod connection;
pub mod counted;
mod error;
pub mod foreign_clock;
pub mod foreign_error;
pub mod foreign_process;
mod hangup;
mod hint_words;
pub mod join;
mod kick_record;
pub mod kick_signal;
pub mod message;
mod number;
mod page;
pub mod pages;
pub mod pool_side;
pub mod rate_limit;
mod sync;
pub mod thread_side;
mod vcpu_index;
pub mod wake_file;

pub use error::{LinkError, ProtocolError};
pub use hint_words::HintError;
pub use page::{HeaderError, PAGE_VERSION};
pub use vcpu_index::VcpuIndex;

#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(not(loom))]
#[cfg(test)]
mod handover_tests;
#[cfg(not(loom))]
#[cfg(test)]
mod process_tests;
