//! HTTP calls to the provider: bounded, with the token, to its own origin only.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Uri;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Empty;
use secrecy::ExposeSecret as _;

use super::ProviderError;
use super::account::AccountId;
use super::origin::{self, Leads};
use super::page;
use broker_domain::Timestamp;
use broker_runtime::clock::{Clock, http_date};
use broker_runtime::config::ProviderConfig;
use broker_runtime::errors;
use broker_runtime::https::{self, NotWhole};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Timeout of opening a connection (ARCHITECTURE.md, "Provider").
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// The longest pause that a header may demand: one odd header must not stop all deletions.
const LONGEST_REST: Duration = Duration::from_secs(3_600);
/// The largest page that is read.
pub(super) const LARGEST_BODY: usize = 4 * 1024 * 1024;

/// A response with its whole body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    location: Option<String>,
    /// It is a web page.
    pub(super) is_html: bool,
    /// `None`: it is larger than what is read.
    pub(super) body: Option<Bytes>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct CallFailure {
    pub(super) error: ProviderError,
    /// The request may have reached the provider.
    pub(super) was_asked: bool,
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
        let mut parts = self.base.clone().into_parts();
        let wrong = |problem: String| ProviderError::Malformed { problem };
        parts.path_and_query =
            Some(under.parse().map_err(|_| wrong(format!("{under:?} is not a valid path")))?);
        Uri::from_parts(parts).map_err(|error| wrong(error.to_string()))
    }

    /// One call, from connecting to the last byte within the timeout, with the trace context.
    pub(super) async fn call(
        &self,
        method: &Method,
        uri: &Uri,
        traceparent: Option<&str>,
    ) -> Result<Answer, CallFailure> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(context) = traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
            request.headers_mut().insert(TRACEPARENT, context);
        }
        let call = async {
            let response = self.client.request(request).await.map_err(|error| not_sent(&error))?;
            let (head, body) = response.into_parts();
            let body = match https::whole(body, LARGEST_BODY).await {
                Ok(body) => Some(body),
                Err(NotWhole::TooLarge { .. }) => None,
                Err(NotWhole::Broken(problem)) => return Err(unavailable(problem, true)),
            };
            Ok(self.answer(head.status, &head.headers, body))
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                Err(unavailable(format!("no response within {} s", self.timeout.as_secs()), true))
            }
        }
    }

    fn answer(&self, status: StatusCode, headers: &HeaderMap, body: Option<Bytes>) -> Answer {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let says_html = text(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"));
        Answer {
            status,
            retry_after: retry_after(headers, self.clock.now()),
            location: text(header::LOCATION).map(str::to_owned),
            is_html: says_html || body.as_ref().is_some_and(|body| page::is_html(body)),
            body,
        }
    }
}

impl Answer {
    /// Whether it says that what is at `from` has moved; where to, if that is on the provider's own origin and still the
    /// same account.
    pub(super) fn moved(
        &self,
        method: &Method,
        from: &Uri,
        account: Option<&AccountId>,
    ) -> Option<Result<Uri, String>> {
        let moved = match self.status.as_u16() {
            301 | 302 | 307 | 308 => true,
            303 => method == Method::GET,
            _ => false,
        };
        moved.then(|| {
            let status = self.status.as_u16();
            let Some(location) = &self.location else {
                return Err(format!("it answers {status} and does not say where it is"));
            };
            match origin::resolve(location, from)? {
                Leads::Here(to) if account.is_none_or(|account| is_of(&to, account)) => Ok(to),
                Leads::Here(to) => Err(format!("it answers {status} and sends a deletion to {}", to.path())),
                Leads::Elsewhere(origin) => Err(format!("it answers {status} and sends to {origin}")),
            }
        })
    }
}

/// Whether a URL ends in the account.
fn is_of(uri: &Uri, account: &AccountId) -> bool {
    let last = uri.path().trim_end_matches('/').rsplit('/').next();
    last.is_some_and(|last| last.eq_ignore_ascii_case(&account.to_string()))
}

fn unavailable(problem: String, was_asked: bool) -> CallFailure {
    CallFailure { error: ProviderError::Unavailable { problem }, was_asked }
}

/// The error of a call without an answer.
fn not_sent(error: &hyper_util::client::legacy::Error) -> CallFailure {
    use std::error::Error as _;
    let problem = errors::chain(error);
    if https::is_tls(error) {
        let error = ProviderError::WrongUrl { problem: format!("no secure connection, {problem}") };
        return CallFailure { error, was_asked: false };
    }
    let speaks_http = error
        .source()
        .and_then(|source| source.downcast_ref::<hyper::Error>())
        .is_none_or(|error| !error.is_parse());
    if !speaks_http {
        let error =
            ProviderError::WrongUrl { problem: format!("what is there does not speak HTTP, {problem}") };
        return CallFailure { error, was_asked: true };
    }
    unavailable(problem, !error.is_connect())
}

/// Seconds or a future date (RFC 9110, 10.2.3), an hour at most. A past date is no pause: clocks differ.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
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
