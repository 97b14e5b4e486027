//! The end of what a process has printed on standard error, for an error.

use std::fs;
use std::path::Path;

/// Number of lines.
const LINES: usize = 3;

/// The last lines of the file `log`, as one line.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let text = lines[lines.len().saturating_sub(LINES)..].join("; ");
    // What a guest prints must not control the terminal.
    text.chars().filter(|c| !c.is_control()).collect()
}
