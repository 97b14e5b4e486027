//! A small server. It answers one request at a time. A request has at most 4 KiB and must come within a second;
//! the answer must be read within another; then the connection ends. There is no authentication, so listen only
//! where every client may know what guests do.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use baton_config::MetricsTarget;
use baton_os::listener::{Access, OwnListener};

use super::reply::{HttpPage, reply};
use super::request::{self, HttpRequest};

/// Longest request, bytes.
const MAX_REQUEST: usize = 4096;
/// Longest time for a client to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be accepted.
const REST: Duration = Duration::from_millis(100);

/// The socket at which requests come in.
#[derive(Debug)]
pub(crate) enum HttpServer {
    Tcp(TcpListener),
    Unix(OwnListener),
}

impl HttpServer {
    /// Listens at `target`; a Unix socket gives `access`.
    pub(crate) fn bind(target: &MetricsTarget, access: Access) -> io::Result<Self> {
        match target {
            MetricsTarget::Tcp(address) => {
                let tcp = TcpListener::bind(address)?;
                // A client that gives up before it is accepted must not block the thread.
                tcp.set_nonblocking(true)?;
                Ok(Self::Tcp(tcp))
            }
            MetricsTarget::Unix(path) => Ok(Self::Unix(OwnListener::bind(path, access)?)),
            MetricsTarget::File(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Answers one request, if there is one, with the page at its path. If the connection fails, the client gets
    /// no answer, and that is all.
    pub(crate) fn answer(&self, page: impl FnOnce(&HttpRequest<'_>) -> Option<HttpPage>) {
        match self {
            Self::Tcp(tcp) => {
                if let Some((stream, _)) = or_rest(tcp.accept()) {
                    let _ = stream.set_nonblocking(false).and_then(|()| {
                        let (read, write) = (
                            |t| stream.set_read_timeout(t),
                            |t| stream.set_write_timeout(t),
                        );
                        converse(&stream, read, write, page)
                    });
                }
            }
            Self::Unix(unix) => {
                if let Some(stream) = or_rest(unix.accept()) {
                    let _ = stream.set_nonblocking(false).and_then(|()| {
                        let (read, write) = (
                            |t| stream.set_read_timeout(t),
                            |t| stream.set_write_timeout(t),
                        );
                        converse(&stream, read, write, page)
                    });
                }
            }
        }
    }
}

impl AsRawFd for HttpServer {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
        }
    }
}

/// The accepted connection. Where none can be accepted, for instance because too many files are open, the
/// connection stays in the queue, and trying again at once would burn a CPU.
fn or_rest<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(connection) => Some(connection),
        Err(error) => {
            if error.kind() != ErrorKind::WouldBlock {
                std::thread::sleep(REST);
            }
            None
        }
    }
}

/// Reads a request and answers it, both within [`PATIENCE`].
fn converse<S>(
    stream: S,
    read_timeout: impl Fn(Option<Duration>) -> io::Result<()>,
    write_timeout: impl Fn(Option<Duration>) -> io::Result<()>,
    page: impl FnOnce(&HttpRequest<'_>) -> Option<HttpPage>,
) -> io::Result<()>
where
    S: Read + Write,
{
    let mut stream = stream;
    let left = |until: Instant| match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    let until = Instant::now() + PATIENCE;
    let mut request = [0; MAX_REQUEST];
    let mut got = 0;
    while request::is_unfinished(&request[..got]) && got < MAX_REQUEST {
        read_timeout(left(until)?)?;
        match stream.read(&mut request[got..])? {
            0 => break,
            more => got += more,
        }
    }
    let answer = reply(&request[..got], page);
    let until = Instant::now() + PATIENCE;
    let mut rest = answer.as_bytes();
    while !rest.is_empty() {
        write_timeout(left(until)?)?;
        match stream.write(rest)? {
            0 => break,
            sent => rest = &rest[sent..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_requests_are_cut_off() {
        struct Endless(Vec<u8>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b'x');
                Ok(buffer.len())
            }
        }
        impl Write for Endless {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut stream = Endless(Vec::new());
        converse(
            &mut stream,
            |_| Ok(()),
            |_| Ok(()),
            |_| unreachable!("no metrics"),
        )
        .expect("answers");
        assert!(stream.0.starts_with(b"HTTP/1.1 400"));
    }
}
