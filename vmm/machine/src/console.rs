//! Console output and input, without ever making a vCPU wait.
//!
//! Guests that share standard output, and a guest with a file, send lines or characters through a bounded
//! queue to a thread that writes them. When the queue is full (a guest floods it, or the output is not read)
//! the line is dropped. Output that has not been written at the end is counted, whatever the reason.
//!
//! A guest whose console is a socket or a pseudo-terminal prints into a scrollback, from which a thread of that
//! console gives each attached program what is new for it. The same thread takes input from those programs.
//!
//! | file | idea |
//! |---|---|
//! | `line_buffer.rs` | from characters to lines |
//! | `port.rs` | from a guest's lines to the queue or the scrollback |
//! | `thread.rs` | from the queue to a file |
//! | `scrollback.rs` | the last output, from which each reader takes what is new for it |
//! | `output_reader.rs` | a reader of that output |
//! | `input.rs` | from attached programs to the guest, no faster than the guest reads |
//! | `endpoint.rs`, `socket.rs`, `pty.rs` | what programs attach to: a socket, a pseudo-terminal |
//! | `reserved_terminal.rs` | pseudo-terminals that are opened before a sandbox forbids it |
//! | `served.rs` | the thread of a console that programs attach to |
//! | `guest_console.rs` | the console of one guest, wherever that is |
//! | `account.rs` | what was printed, lost and charged |

mod account;
mod endpoint;
mod guest_console;
mod input;
mod line_buffer;
mod output_reader;
mod port;
mod pty;
mod reserved_terminal;
mod scrollback;
mod served;
mod socket;
mod thread;

pub use account::ConsoleCount;
pub use guest_console::{ConsoleError, GuestConsole};
pub use input::TakesInput;
pub use line_buffer::LineBuffer;
pub use port::ConsolePort;
pub use reserved_terminal::reserve_terminal;
pub use scrollback::KEPT;
pub use socket::MAX_CLIENTS;
pub use thread::ConsoleThread;

#[cfg(test)]
mod tests;
