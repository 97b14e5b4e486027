//! One line on a terminal that shows how far a long benchmark has come.

use std::io::{self, IsTerminal, Write};

/// The line; nothing is shown where standard error is not a terminal.
#[derive(Debug)]
pub struct StatusLine {
    is_shown: bool,
}

impl StatusLine {
    /// The line on standard error.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
        }
    }

    /// Replaces the line by `text`.
    pub fn show(&self, text: &str) {
        if self.is_shown {
            let mut stderr = io::stderr();
            // A status that cannot be shown is no reason to stop.
            let _ = write!(stderr, "\r\x1b[K{text}");
            let _ = stderr.flush();
        }
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.show("");
    }
}
