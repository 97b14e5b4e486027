//! The console of a guest.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{ConfigError, fail};

/// Where a guest's console is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConsoleConfig {
    /// Standard output, shared by all guests whose consoles are here. If there is one such guest, it gets
    /// standard input.
    #[default]
    Stdio,
    /// A file, to which is appended what the guest prints. The guest gets no input.
    File(PathBuf),
    /// A Unix socket, to which several programs may connect.
    Unix(PathBuf),
    /// A pseudo-terminal, whose path is printed at the start.
    Pty,
    /// What the guest prints is discarded, and the guest gets no input.
    Off,
}

impl FromStr for ConsoleConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => return Ok(Self::File(path.into())),
            Some(("unix", path)) if !path.is_empty() => return Ok(Self::Unix(path.into())),
            _ => {}
        }
        match text {
            "stdio" => Ok(Self::Stdio),
            "pty" => Ok(Self::Pty),
            "off" => Ok(Self::Off),
            other => fail(format!(
                "console is '{}', must be stdio, pty, off, or as in unix:/run/vm.sock or file:vm.log",
                other.escape_default()
            )),
        }
    }
}

impl fmt::Display for ConsoleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => write!(f, "stdio"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Pty => write!(f, "pty"),
            Self::Off => write!(f, "off"),
        }
    }
}

impl ConsoleConfig {
    /// The file or socket of the console, if the user has named one.
    #[must_use]
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) | Self::Unix(path) => Some(path),
            Self::Stdio | Self::Pty | Self::Off => None,
        }
    }

    /// [`Self::path`], to be changed.
    pub(crate) fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(path) | Self::Unix(path) => Some(path),
            Self::Stdio | Self::Pty | Self::Off => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_reads_back_as_written_and_anything_else_is_refused() {
        for text in ["stdio", "pty", "off", "file:a:b.log", "unix:/run/vm.sock"] {
            let console: ConsoleConfig = text.parse().expect(text);
            assert_eq!(console.to_string(), text);
        }
        for text in [
            "",
            "file:",
            "unix:",
            "file",
            "tty",
            "pty:1",
            "stdio:",
            "\u{1b}[2J",
        ] {
            let error = text.parse::<ConsoleConfig>().expect_err(text);
            assert!(error.0.contains("unix:/run/vm.sock"), "{error}");
            assert!(!error.0.contains('\u{1b}'), "{error}");
        }
    }
}
