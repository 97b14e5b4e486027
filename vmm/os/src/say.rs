//! Sentences for the user on standard error.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::output;

/// Writes a line to standard error. `eprintln!` would panic where the line cannot be written, because the
/// terminal is gone or the reader has ended, and so keep a run from starting or from ending well.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}

/// How long a reader that is behind may keep a sentence from being written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes `text` as a line on standard error, if that can be written.
pub fn line(text: fmt::Arguments<'_>) {
    // In one piece, so that lines of several programs stay whole.
    let text = format!("{text}\n");
    let _ = output::write_within(&io::stderr(), text.as_bytes(), PATIENCE);
}
