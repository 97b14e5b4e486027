//! Standard input, for the serial port of a guest.
//!
//! Input begins when the guest's driver enables it. A terminal then belongs to the guest until the
//! thread ends, except while this process is in the background. Then the keys are the shell's, and the
//! thread checks at intervals whether the process is in the foreground again, which no event reports. Virtio
//! devices have threads of their own.
//!
//! | file | idea |
//! |---|---|
//! | `thread.rs` | the thread |
//! | `serial_input.rs` | from stdin to the serial port |

mod serial_input;
mod thread;

pub use thread::StdinThread;
