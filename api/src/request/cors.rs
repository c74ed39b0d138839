//! Cross-origin requests (the Fetch standard): the web pages that may read responses.
//!
//! Invariant: an origin that is not configured gets no CORS header at all, so its page reads nothing. Credentials in the
//! browser's sense (cookies) are never allowed; a bearer token is an ordinary header. Clients that are no browsers are
//! handled by [`auth`](crate::request::auth).

use broker_runtime::config::Origins;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::response::{Content, Response};

/// Headers that a page may send, beyond the ones that every page may.
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key, if-match, prefer, x-instruqt-sandbox-id, \
                               x-instruqt-track-id, x-request-id, x-sandbox-flavour, x-sandbox-name-prefix, x-track-id";
/// Headers that a page may read, beyond the ones that every page may.
const ANSWER_HEADERS: &str =
    "etag, location, preference-applied, ratelimit, ratelimit-policy, retry-after, x-request-id";
/// How long a browser may remember a preflight, in seconds; browsers cap it at two hours or less.
const REMEMBERED_S: u64 = 3_600;

/// The CORS policy.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    pub(crate) origins: Origins,
}

impl Cors {
    /// The response to a preflight of an allowed origin; `None` if `head` is another request, which goes its normal way.
    pub(crate) fn preflight(&self, head: &Parts) -> Option<Response> {
        let asks = head.method == Method::OPTIONS
            && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        self.allowed(&head.headers).filter(|_| asks)?;
        let answer = Response::new(StatusCode::NO_CONTENT, Content::Nothing, "preflight")
            .with(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE"),
            )
            .with(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS))
            .with(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(REMEMBERED_S));
        Some(answer)
    }

    /// `answer` with the headers that the requesting page needs to read it.
    pub(crate) fn add_headers(&self, asked: &HeaderMap, answer: Response) -> Response {
        if self.origins.is_empty() {
            return answer;
        }
        let answer = answer.with(header::VARY, HeaderValue::from(HeaderName::from_static("origin")));
        match self.allowed(asked) {
            Some(origin) => answer
                .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())
                .with(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS)),
            None => answer,
        }
    }

    fn allowed<'h>(&self, asked: &'h HeaderMap) -> Option<&'h HeaderValue> {
        let origin = asked.get(header::ORIGIN)?;
        self.origins.allow(origin.to_str().ok()?).then_some(origin)
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;
    use http::Request;
    use serde_json::json;

    use super::*;

    const PAGE: &str = "https://labs.example";

    fn cors(origins: &str) -> Cors {
        Cors { origins: Origins::parse(origins).unwrap() }
    }

    fn asked(method: Method, origin: Option<&str>, for_method: Option<&str>) -> Parts {
        let mut request = Request::builder().method(method);
        for (name, value) in [(header::ORIGIN, origin), (header::ACCESS_CONTROL_REQUEST_METHOD, for_method)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.body(()).unwrap().into_parts().0
    }

    fn marked(cors: &Cors, origin: Option<&str>) -> HeaderMap {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let answer = Response::json(StatusCode::OK, json!({}), "fine");
        let head = asked(Method::GET, origin, None);
        cors.add_headers(&head.headers, answer).into_http(id).into_parts().0.headers
    }

    #[test]
    fn a_configured_page_may_read_and_another_may_not() {
        let cors = cors("https://labs.example, http://localhost:3000");
        let headers = marked(&cors, Some(PAGE));
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
        assert!(headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().contains("x-request-id"));
        for other in [Some("https://evil.example"), Some("http://labs.example"), Some("null"), None] {
            let headers = marked(&cors, other);
            assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{other:?}");
            assert_eq!(headers[header::VARY], "origin", "a cache must not share answers between origins");
        }
    }

    #[test]
    fn without_origins_nothing_is_said() {
        let headers = marked(&cors(""), Some(PAGE));
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        assert!(!headers.contains_key(header::VARY));
        assert!(cors("").preflight(&asked(Method::OPTIONS, Some(PAGE), Some("POST"))).is_none());
    }

    #[test]
    fn a_preflight_is_answered_to_configured_pages_only() {
        let cors = cors(PAGE);
        assert!(cors.preflight(&asked(Method::OPTIONS, Some(PAGE), Some("POST"))).is_some());
        for (method, origin, for_method) in [
            (Method::OPTIONS, Some("https://evil.example"), Some("POST")),
            (Method::OPTIONS, Some(PAGE), None),
            (Method::OPTIONS, None, Some("POST")),
            (Method::POST, Some(PAGE), Some("POST")),
        ] {
            assert!(cors.preflight(&asked(method, origin, for_method)).is_none());
        }
    }

    #[test]
    fn a_star_allows_every_page() {
        assert!(marked(&cors("*"), Some(PAGE)).contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}
