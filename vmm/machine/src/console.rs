//! Console output: from guests to stdout, without ever making a vCPU wait.
//!
//! Lines go through a bounded queue to a thread that writes them. When the queue is full (a guest
//! floods it, or stdout is not read) the line is dropped. Output that has not been written at the end
//! is counted, whatever the reason.
//!
//! | file | idea |
//! |---|---|
//! | `line_buffer.rs` | from characters to lines |
//! | `port.rs` | from a guest's lines to the queue |
//! | `printable.rs` | what a guest may print where several guests share a terminal |
//! | `thread.rs` | from the queue to stdout |
//! | `account.rs` | what was printed, lost and charged |

mod account;
mod line_buffer;
mod port;
mod printable;
mod thread;

pub use account::ConsoleCount;
pub use line_buffer::LineBuffer;
pub use port::ConsolePort;
pub use thread::ConsoleThread;
