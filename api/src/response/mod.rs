//! Responses before they are HTTP, and the headers that every response carries.
//!
//! Invariant: no response leaves without `X-Request-ID` and the security headers.

pub mod bodies;
pub mod codes;
pub(crate) mod outcome;
pub(crate) mod problem;

use std::borrow::Cow;

use broker_domain::RequestId;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// The broker's id of each request; a client's own is only logged.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Directives for browsers and caches, for responses without their own.
const FIXED: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000; includeSubDomains"),
];

/// The body of a response.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// `application/json`.
    Json(Value),
    /// `application/problem+json` (RFC 9457).
    Problem(Value),
    /// The text format that Prometheus scrapes.
    Metrics(String),
    /// A file, unchanged.
    File {
        /// Its media type.
        media_type: &'static str,
        /// Its content.
        bytes: Bytes,
    },
    /// No body.
    Nothing,
}

impl Content {
    const fn media_type(&self) -> Option<&'static str> {
        match self {
            Self::Json(_) => Some("application/json"),
            Self::Problem(_) => Some("application/problem+json"),
            Self::Metrics(_) => Some("text/plain; version=0.0.4; charset=utf-8"),
            Self::File { media_type, .. } => Some(media_type),
            Self::Nothing => None,
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Json(value) | Self::Problem(value) => Bytes::from(value.to_string()),
            Self::Metrics(text) => Bytes::from(text),
            Self::File { bytes, .. } => bytes,
            Self::Nothing => Bytes::new(),
        }
    }
}

/// A response: a status, a body, and the headers that only it has.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) content: Content,
    headers: HeaderMap,
    /// The word in logs and metrics.
    pub(crate) outcome: Cow<'static, str>,
    /// Whether its request might wait in a line: how long it took says nothing of the broker.
    pub(crate) may_wait: bool,
}

impl Response {
    pub(crate) fn new(status: StatusCode, content: Content, outcome: impl Into<Cow<'static, str>>) -> Self {
        Self { status, content, headers: HeaderMap::new(), outcome: outcome.into(), may_wait: false }
    }

    pub(crate) fn json(status: StatusCode, body: Value, outcome: &'static str) -> Self {
        Self::new(status, Content::Json(body), outcome)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With `Location`. Our paths hold checked ids only, which are valid in a header.
    pub(crate) fn located(self, path: &str) -> Self {
        match HeaderValue::from_str(path) {
            Ok(value) => self.with(header::LOCATION, value),
            Err(_) => self,
        }
    }

    /// With `Retry-After`, in seconds.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// As HTTP, to the request `id`.
    pub(crate) fn into_http(self, id: RequestId) -> http::Response<Bytes> {
        let media_type = self.content.media_type().map(HeaderValue::from_static);
        let mut response = http::Response::new(self.content.into_bytes());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        *headers = self.headers;
        if let Some(media_type) = media_type {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        for (name, value) in FIXED {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(X_REQUEST_ID, id);
        }
        response
    }
}
