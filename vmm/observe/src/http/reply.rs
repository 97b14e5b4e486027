//! The answer to a request.

use super::request::{HttpRequest, RequestHeaders};

/// What is at a path.
pub(crate) struct HttpPage {
    pub(crate) content_type: &'static str,
    pub(crate) text: String,
}

/// The answer to the bytes of a request, where `page` has what is at a path.
pub(super) fn reply(
    request: &[u8],
    page: impl FnOnce(&HttpRequest<'_>) -> Option<HttpPage>,
) -> String {
    let plain = "text/plain; charset=utf-8";
    let mut headers = RequestHeaders::new();
    let parsed = HttpRequest::parse(request, &mut headers);
    let (status, content_type, body) = match &parsed {
        None => ("400 Bad Request", plain, "no whole request\n".to_owned()),
        Some(request) if !matches!(request.method, "GET" | "HEAD") => (
            // The methods that are allowed are a header of their own.
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            plain,
            "only GET and HEAD\n".to_owned(),
        ),
        Some(request) => match page(request) {
            Some(page) => ("200 OK", page.content_type, page.text),
            None => ("404 Not Found", plain, "there is nothing here\n".to_owned()),
        },
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    match parsed {
        Some(request) if request.method == "HEAD" => head,
        _ => head + &body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(request: &HttpRequest<'_>) -> Option<HttpPage> {
        (request.path == "/metrics").then(|| HttpPage {
            content_type: "text/plain",
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
        // The form for proxies, which every server must accept.
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
    fn a_method_that_is_not_allowed_is_refused_with_those_that_are() {
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
}
