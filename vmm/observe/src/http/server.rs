//! Answering scrapes. Few need it, so it is little: one request at a time, of at most 4 KiB, within
//! a second, and an answer that is taken within another; then the connection ends. It does not
//! authenticate: listen where only those can reach it who may know.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_config::MetricsTarget;
use baton_os::listener::{Access, OwnListener};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

pub(crate) mod request;

use request::{Asked, Headers};

/// Longest request, bytes.
const MAX_REQUEST: usize = 4096;
/// Longest time to send a request, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be accepted.
const REST: Duration = Duration::from_millis(100);

/// What is at a path.
pub(crate) struct Page {
    /// Its content type.
    pub(crate) kind: &'static str,
    /// Its text.
    pub(crate) text: String,
}

/// Waits for requests, and for the end.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: Epoll,
    stop: Arc<EventFd>,
}

impl Waiter {
    pub fn new(stop: Arc<EventFd>, listener: Option<&Listener>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let fds = [Some(stop.as_raw_fd()), listener.map(Listener::fd)];
        for fd in fds.into_iter().flatten() {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        Ok(Self { epoll, stop })
    }

    /// Waits for a request, or for so long; true at the end.
    pub(crate) fn stopped(&self, timeout: Option<Duration>) -> bool {
        let timeout = timeout.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
        let mut events = [EpollEvent::default()];
        match self.epoll.wait(timeout, &mut events) {
            Err(error) if error.kind() != ErrorKind::Interrupted => true,
            _ => self.stop.read().is_ok(),
        }
    }
}

/// Where requests come in.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(OwnListener),
}

impl Listener {
    /// Listens at `target`; `access` says who may connect to a Unix socket.
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

    fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
        }
    }

    /// Answers one request, if there is one, with the page at its path. What goes wrong is the
    /// client's loss.
    pub(crate) fn answer(&self, page: impl FnOnce(&Asked<'_>) -> Option<Page>) {
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

/// What was accepted. Where nothing can be (too many open files, say), the request stays, and
/// asking again at once would burn a CPU.
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
    page: impl FnOnce(&Asked<'_>) -> Option<Page>,
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

/// The answer to a request.
fn reply(request: &[u8], page: impl FnOnce(&Asked<'_>) -> Option<Page>) -> String {
    let plain = "text/plain; charset=utf-8";
    let mut headers = Headers::new();
    let asked = Asked::parse(request, &mut headers);
    let (status, kind, body) = match &asked {
        None => ("400 Bad Request", plain, "no whole request\n".to_owned()),
        Some(asked) if !matches!(asked.method, "GET" | "HEAD") => (
            // What may be asked instead stands in a line of its own.
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            plain,
            "only GET and HEAD\n".to_owned(),
        ),
        Some(asked) => match page(asked) {
            Some(page) => ("200 OK", page.kind, page.text),
            None => ("404 Not Found", plain, "there is nothing here\n".to_owned()),
        },
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    match asked {
        Some(asked) if asked.method == "HEAD" => head,
        _ => head + &body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(asked: &Asked<'_>) -> Option<Page> {
        (asked.path == "/metrics").then(|| Page {
            kind: "text/plain",
            text: "# EOF\n".to_owned(),
        })
    }

    fn status(request: &str) -> String {
        let reply = reply(request.as_bytes(), page);
        reply.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn only_whole_requests_for_metrics_get_them() {
        assert_eq!(
            status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            "HTTP/1.1 200 OK"
        );
        assert_eq!(
            status("GET /metrics?a=b HTTP/1.0\r\n\r\n"),
            "HTTP/1.1 200 OK"
        );
        // As a proxy is asked, which any server must understand.
        assert_eq!(
            status("GET http://127.0.0.1:9469/metrics HTTP/1.1\r\nHost: 127.0.0.1:9469\r\n\r\n"),
            "HTTP/1.1 200 OK"
        );
        for nothing in ["/", "http://metrics", "http://host/metrics/more"] {
            assert_eq!(
                status(&format!("GET {nothing} HTTP/1.1\r\n\r\n")),
                "HTTP/1.1 404 Not Found"
            );
        }
        assert_eq!(
            status("PUT /metrics HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 405 Method Not Allowed"
        );
        assert_eq!(
            status("GET /metrics HTTP/1.1\r\n"),
            "HTTP/1.1 400 Bad Request"
        );
        for none in ["", "nonsense\r\n\r\n", "GET /metrics\r\n\r\n"] {
            assert_eq!(status(none), "HTTP/1.1 400 Bad Request");
        }
    }

    #[test]
    fn who_asks_for_what_is_not_allowed_is_told_what_is() {
        let reply = reply(b"POST /metrics HTTP/1.1\r\n\r\n", page);
        assert!(reply.contains("\r\nAllow: GET, HEAD\r\n"), "{reply}");
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let reply = reply(b"HEAD /metrics HTTP/1.1\r\n\r\n", page);
        assert!(
            reply.contains("Content-Length: 6\r\n") && reply.ends_with("\r\n\r\n"),
            "{reply}"
        );
    }

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
