//! HTTP calls to the provider: bounded, with the token, to its own origin only.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use secrecy::ExposeSecret as _;

use super::ProviderError;
use broker_domain::Timestamp;
use broker_runtime::clock::{Clock, http_date};
use broker_runtime::config::ProviderConfig;
use broker_runtime::https;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Timeout of opening a connection (ARCHITECTURE.md, "Provider").
const CONNECT: Duration = Duration::from_secs(5);
/// The longest pause that a 429 may demand: one odd header must not stop all deletions.
const LONGEST_REST: Duration = Duration::from_secs(3_600);
/// The largest page that is read.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// A response with its whole body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// The connections to the provider.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: https::Client<Empty<Bytes>>,
    base: Uri,
    authorization: HeaderValue,
    timeout: Duration,
    clock: Clock,
}

impl Http {
    pub(super) fn new(config: &ProviderConfig, clock: Clock) -> Result<Self, ProviderError> {
        let wrong = |problem: String| ProviderError::Malformed { problem };
        let mut authorization = HeaderValue::from_str(&format!("Token {}", config.token.expose_secret()))
            .map_err(|_| wrong("the token is not a valid header value".to_owned()))?;
        authorization.set_sensitive(true);
        let client = https::client(&config.url, CONNECT).map_err(wrong)?;
        Ok(Self { client, base: config.url.clone(), authorization, timeout: config.timeout, clock })
    }

    /// The URL of a path under the base.
    pub(super) fn at(&self, path: &str) -> Result<Uri, ProviderError> {
        let under = format!("{}{path}", self.base.path().trim_end_matches('/'));
        self.with_path(&under)
    }

    /// A URL from a response of the provider, if it is of the provider's own origin.
    pub(super) fn follow(&self, next: &str) -> Result<Uri, ProviderError> {
        let foreign =
            || ProviderError::Malformed { problem: format!("next page {next:?} is not of its origin") };
        let uri: Uri = next.parse().map_err(|_| foreign())?;
        let same = match (uri.scheme(), uri.authority()) {
            (None, None) => next.starts_with('/'),
            (scheme, authority) => scheme == self.base.scheme() && authority == self.base.authority(),
        };
        if !same {
            return Err(foreign());
        }
        self.with_path(uri.path_and_query().map_or("/", PathAndQuery::as_str))
    }

    fn with_path(&self, path: &str) -> Result<Uri, ProviderError> {
        let mut parts = self.base.clone().into_parts();
        let wrong = |problem: String| ProviderError::Malformed { problem };
        parts.path_and_query =
            Some(path.parse().map_err(|_| wrong(format!("{path:?} is not a valid path")))?);
        Uri::from_parts(parts).map_err(|error| wrong(error.to_string()))
    }

    /// One call, from connecting to the last byte within the timeout, with the trace context.
    pub(super) async fn call(
        &self,
        method: Method,
        uri: &Uri,
        traceparent: Option<String>,
    ) -> Result<Answer, ProviderError> {
        let unavailable = |problem: String| ProviderError::Unavailable { problem };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(context) = traceparent.and_then(|text| HeaderValue::from_str(&text).ok()) {
            request.headers_mut().insert(TRACEPARENT, context);
        }
        let call = async {
            let response = self.client.request(request).await.map_err(|error| https::error_chain(&error))?;
            let (head, body) = response.into_parts();
            Ok(Answer {
                status: head.status,
                retry_after: retry_after(&head.headers, self.clock.now()),
                body: https::whole(body, LARGEST_BODY).await?,
            })
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_elapsed) => Err(unavailable(format!("no response within {} s", self.timeout.as_secs()))),
        }
    }
}

/// Seconds or a future date (RFC 9110, 10.2.3), an hour at most. A past date is no pause: clocks differ.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Some(http_date(text)?.since(now)).filter(|rest| !rest.is_zero())?,
    };
    Some(rest.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_asked_for_in_seconds_or_by_date_and_never_ends_all_deletions() {
        let now = http_date("Mon, 23 Nov 2026 00:00:00 GMT").unwrap();
        let asked = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]), now)
        };
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(asked("Mon, 23 Nov 2026 00:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(asked("Sun, 22 Nov 2026 00:00:00 GMT"), None);
        for long in ["18446744073709551615", "Fri, 23 Nov 2126 00:00:00 GMT"] {
            assert_eq!(asked(long), Some(LONGEST_REST), "{long}");
        }
        for unreadable in ["", "-1", "1.5", "tomorrow", "99999999999999999999"] {
            assert_eq!(asked(unreadable), None, "{unreadable}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
