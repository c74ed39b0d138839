//! Responses of the API, with the checks that hold for every response.

use http::HeaderMap;
use serde_json::Value;

/// An answer. Making one already checks that it carries `X-Request-ID`.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The request, for failure messages.
    pub told: String,
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON, or null.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// Reads a response to the request `told`.
    ///
    /// # Panics
    ///
    /// Without `X-Request-ID`.
    pub fn new(told: String, status: u16, headers: HeaderMap, body: &[u8]) -> Self {
        let json = serde_json::from_slice(body).unwrap_or_default();
        let answer = Self { told, status, headers, json, text: String::from_utf8_lossy(body).into_owned() };
        assert!(
            answer.header("x-request-id").is_some_and(|id| !id.is_empty()),
            "no X-Request-ID: {answer:?}"
        );
        answer
    }

    /// It has this status.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// It is a problem of this status and code, in both shapes: RFC 9457 and the older `error` object.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let answer = self.expect_status(status);
        let error = &answer.json["error"];
        assert_eq!(error["code"], code, "{answer:#?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:#?}");
        assert_eq!(answer.json["status"], status, "{answer:#?}");
        assert!(answer.json["title"].is_string(), "no title: {answer:#?}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "no message: {answer:#?}");
        assert_eq!(error["request_id"].as_str(), answer.header("x-request-id"), "{answer:#?}");
        if matches!(status, 409 | 429 | 503) {
            let retry_after = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
            assert!(retry_after.is_some(), "no Retry-After in seconds: {answer:#?}");
            assert_eq!(error["retry_after"].as_u64(), retry_after, "{answer:#?}");
        }
        answer
    }

    /// A header, if it is there once or more (the first) and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header that must be there.
    #[track_caller]
    pub fn must_have(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name}: {self:#?}"))
    }

    /// A text of the body that must be there.
    #[track_caller]
    pub fn text_of(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_else(|| panic!("no text {field}: {self:#?}"))
    }

    /// A number of the body that must be there.
    #[track_caller]
    pub fn number_of(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {self:#?}"))
    }

    /// The sandbox that an allocate answered with.
    #[track_caller]
    pub fn sandbox_id(&self) -> &str {
        self.text_of("sandbox_id")
    }
}
