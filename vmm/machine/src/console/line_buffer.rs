//! From characters to lines.

use std::io::{self, Write};

use super::port::ConsolePort;

/// Longest piece that is sent; longer lines are split.
const MAX_LINE: usize = 256;

/// Collects characters into lines for a [`ConsolePort`]. Each vCPU has a buffer of its own, so lines of
/// different vCPUs do not run into each other.
#[derive(Debug)]
pub struct LineBuffer {
    line: Vec<u8>,
    port: ConsolePort,
    /// Whether characters are sent as they come.
    is_raw: bool,
}

impl LineBuffer {
    /// A buffer that sends whole lines.
    #[must_use]
    pub fn lines(port: ConsolePort) -> Self {
        Self {
            line: Vec::with_capacity(MAX_LINE),
            port,
            is_raw: false,
        }
    }

    /// A buffer that sends characters as they come if the guest has the output for itself, so that
    /// prompts show.
    #[must_use]
    pub fn interactive(port: ConsolePort) -> Self {
        let is_raw = !port.is_shared();
        let mut buffer = Self::lines(port);
        buffer.is_raw = is_raw;
        buffer
    }

    /// Takes one character.
    pub fn push(&mut self, byte: u8) {
        self.line.push(byte);
        if self.is_raw || byte == b'\n' {
            self.port.send(&self.line);
            self.line.clear();
        } else if self.line.len() >= MAX_LINE - 1 {
            self.end_line();
        }
    }

    /// Sends the characters collected so far as a line, if there are any.
    pub fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.line.push(b'\n');
            self.port.send(&self.line);
            self.line.clear();
        }
    }
}

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|byte| self.push(*byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_flood_without_a_reader_is_dropped_and_never_waits() {
        let (queue, reader) = mpsc::sync_channel(2);
        let port = ConsolePort::new(queue, String::new());
        let mut buffer = LineBuffer::lines(port.clone());
        for _ in 0..10 {
            buffer.push(b'\n');
        }
        assert_eq!(reader.try_iter().count(), 2, "the others did not wait");
        assert_eq!(port.count().dropped(), 10, "nothing is written");
        // A line without end does not grow either.
        for _ in 0..10_000 {
            buffer.push(b'x');
        }
        assert!(buffer.line.capacity() <= MAX_LINE);
    }
}
