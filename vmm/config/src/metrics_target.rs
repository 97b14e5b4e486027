//! The place where metrics are offered.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where metrics are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsTarget {
    /// HTTP on this address.
    Tcp(SocketAddr),
    /// HTTP on this unix socket.
    Unix(PathBuf),
    /// A file, rewritten every few seconds.
    File(PathBuf),
}

impl FromStr for MetricsTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "'{text}' is not a place for metrics, must be as in 127.0.0.1:9469, \
                     unix:/run/baton.sock or file:/var/lib/node_exporter/baton.prom"
                )
            }),
        }
    }
}

impl fmt::Display for MetricsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_a_socket_or_a_file_and_reads_back_as_written() {
        for text in [
            "127.0.0.1:9469",
            "[::1]:9469",
            "unix:/run/b.sock",
            "file:b:c.prom",
        ] {
            assert_eq!(
                text.parse::<MetricsTarget>().map(|t| t.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["", "9469", "localhost", "unix:", "file:", "tcp:1.2.3.4:5"] {
            assert!(
                text.parse::<MetricsTarget>()
                    .expect_err(text)
                    .contains("127.0.0.1:9469"),
                "{text}"
            );
        }
    }
}
