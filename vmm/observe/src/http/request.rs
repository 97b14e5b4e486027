//! What a request asks for. The `httparse` crate knows the form of HTTP. Requests with a body are of no use here,
//! so a request ends with its head.

use httparse::{EMPTY_HEADER, Header, Request, Status};

/// Most lines in the head of a request.
const MAX_HEADERS: usize = 64;

/// Room for the headers that [`HttpRequest::parse`] finds.
pub(super) struct RequestHeaders<'a>([Header<'a>; MAX_HEADERS]);

impl RequestHeaders<'_> {
    pub(super) fn new() -> Self {
        Self([EMPTY_HEADER; MAX_HEADERS])
    }
}

/// A whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HttpRequest<'a> {
    pub(super) method: &'a str,
    /// The path, without a query.
    pub(crate) path: &'a str,
    /// Whether the client accepts the classic text format, and OpenMetrics, in one `Accept` line or several.
    classic: bool,
    open_metrics: bool,
}

impl<'a> HttpRequest<'a> {
    /// Parses `request`. `None` if it is not whole, or no request.
    pub(super) fn parse(request: &'a [u8], headers: &mut RequestHeaders<'a>) -> Option<Self> {
        let mut head = Request::new(&mut headers.0);
        if !matches!(head.parse(request), Ok(Status::Complete(_))) {
            return None;
        }
        let accepts = |format: &str| {
            head.headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case("accept"))
                .any(|header| names(header.value, format))
        };
        Some(Self {
            method: head.method?,
            path: path(head.path?),
            classic: accepts("text/plain"),
            open_metrics: accepts("application/openmetrics-text"),
        })
    }

    /// Whether the client accepts Prometheus' classic text format and not OpenMetrics. A client without an `Accept`
    /// line gets OpenMetrics.
    pub(crate) fn reads_classic_only(&self) -> bool {
        self.classic && !self.open_metrics
    }
}

/// Whether more must come before `request` can be answered.
pub(super) fn is_unfinished(request: &[u8]) -> bool {
    let mut headers = RequestHeaders::new();
    matches!(
        Request::new(&mut headers.0).parse(request),
        Ok(Status::Partial)
    )
}

/// Whether `format` is one of the list in an `Accept` line.
fn names(accept: &[u8], format: &str) -> bool {
    String::from_utf8_lossy(accept).split(',').any(|range| {
        let name = range.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(format)
    })
}

/// The path of a request's target, which may be in origin form (`/metrics?a=b`) or, as in a request to a proxy, in
/// absolute form (`http://host:port/metrics?a=b`): RFC 9112, 3.2.
fn path(target: &str) -> &str {
    const SCHEME: &str = "http://";
    let target = match target.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let end_of_host = rest.find(['/', '?']).unwrap_or(rest.len());
            &rest[end_of_host..]
        }
        _ => target,
    };
    match target.split('?').next().unwrap_or_default() {
        "" => "/",
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_one_path_in_whichever_form_it_is() {
        for (target, expected) in [
            ("/metrics", "/metrics"),
            ("/metrics?a=b/c", "/metrics"),
            ("http://127.0.0.1:9469/metrics", "/metrics"),
            ("HTTP://user@[::1]:9469/metrics?a=http://b/c", "/metrics"),
            ("http://host", "/"),
            ("http://host?a=b", "/"),
            ("http://", "/"),
            ("http:", "http:"),
            ("*", "*"),
        ] {
            assert_eq!(path(target), expected, "{target}");
        }
    }

    #[test]
    fn a_client_that_reads_only_the_classic_format_is_known_by_what_it_accepts() {
        let classic = |lines: &str| {
            let request = format!("GET /metrics HTTP/1.1\r\n{lines}\r\n");
            let mut headers = RequestHeaders::new();
            HttpRequest::parse(request.as_bytes(), &mut headers)
                .expect("whole")
                .reads_classic_only()
        };
        for lines in [
            "",
            "Accept: */*\r\n",
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3\r\n",
            "Accept: text/plain\r\naccept: Application/OpenMetrics-Text\r\n",
        ] {
            assert!(!classic(lines), "{lines}");
        }
        for lines in [
            "Accept: text/plain\r\n",
            "ACCEPT: application/vnd.google.protobuf;q=0.7, Text/Plain;version=0.0.4;q=0.3, */*;q=0.1\r\n",
        ] {
            assert!(classic(lines), "{lines}");
        }
    }

    #[test]
    fn a_request_is_waited_for_to_its_end_and_nonsense_is_not() {
        let whole = "\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..whole.len() {
            assert!(is_unfinished(&whole.as_bytes()[..end]), "{end}");
        }
        assert!(!is_unfinished(whole.as_bytes()));
        assert!(!is_unfinished(b"\0"));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert!(!is_unfinished(many.as_bytes()));
        assert_eq!(
            HttpRequest::parse(many.as_bytes(), &mut RequestHeaders::new()),
            None
        );
    }
}
