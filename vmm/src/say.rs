//! Sentences for the user on standard error.

use std::fmt;
use std::io::{self, Write};

/// Writes a line, as `eprintln!` does, which panics where nobody takes it: a terminal that is gone, a reader
/// that has ended. That would keep a run from starting, or from its way out.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// Writes `text` as a line on standard error, if anybody takes it.
pub fn line(text: fmt::Arguments<'_>) {
    // In one piece, so that lines of several programs stay whole.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
