//! Requests to the control socket of an instance.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use baton_observe::control::snapshot::{PoolSnapshot, VERSION};

/// Longest time to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read, bytes: some 30,000 vCPUs.
const MAX_ANSWER: u64 = 64 << 20;

/// The state of the instance whose socket is at `path`.
///
/// # Errors
/// If the instance does not answer, or in a form that this version does not know.
pub fn snapshot(path: &Path) -> io::Result<PoolSnapshot> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /snapshot HTTP/1.1\r\nHost: baton\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &str) -> io::Result<PoolSnapshot> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| wrong("it gave no whole answer"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(wrong("it does not show snapshots"));
    }
    let snapshot: PoolSnapshot = serde_json::from_str(body).map_err(io::Error::other)?;
    if snapshot.version == VERSION {
        Ok(snapshot)
    } else {
        Err(wrong("it is another version of baton"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_of_the_same_version_is_taken() {
        let json = |version| {
            serde_json::to_string(&PoolSnapshot {
                version,
                ..PoolSnapshot::default()
            })
            .expect("plain data")
        };
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n\r\n{}", json(VERSION))).is_ok());
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n\r\n{}", json(VERSION + 1))).is_err());
        assert!(parse(&format!("HTTP/1.1 404 Not Found\r\n\r\n{}", json(VERSION))).is_err());
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
    }
}
