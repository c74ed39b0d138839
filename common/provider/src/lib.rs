//! Client of the provider's HTTP API (ARCHITECTURE.md, "Provider").
//!
//! Invariants: no call is unbounded; while the [`Breaker`] is open, or after a 429, no call is made; a list is complete or an
//! error, never a part; only pages of the provider's own origin are followed, so the token goes nowhere else. Retries are
//! the next run's, the rate is the table's, and the decision about a sandbox is the caller's.

mod account;
mod breaker;
mod http;
mod rest;
#[cfg(test)]
mod tests;

pub use account::{Account, AccountId, Listed};
pub use breaker::{Breaker, State as BreakerState};

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use ::http::{Method, StatusCode, Uri};
use opentelemetry::KeyValue;
use serde::Deserialize;

use self::account::Row;
use self::http::{Answer, Http};
use self::rest::Rest;
use broker_runtime::clock::Clock;
use broker_runtime::config::ProviderConfig;
use broker_runtime::trace::Span;

/// The most pages of one list; more are an error.
const MOST_PAGES: usize = 10_000;
/// The longest pause in a list because of a 429, and the most such pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const PAUSES: usize = 5;
/// The pause for a 429 without `Retry-After`.
const PAUSE: Duration = Duration::from_secs(5);

/// Why a call to the provider failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// It failed too often: no call was made.
    #[error("the provider failed too often, no call for another {} s", again_after.as_secs())]
    BreakerOpen {
        /// How long until the next call.
        again_after: Duration,
    },
    /// It answered 429, now or a moment ago.
    #[error("the provider asks to slow down for {} s", again_after.as_secs())]
    RateLimited {
        /// For how long.
        again_after: Duration,
    },
    /// It does not accept the token.
    #[error("the provider does not accept the token: check BROKER_PROVIDER_TOKEN")]
    Unauthorized,
    /// It refuses this call.
    #[error("the provider refuses with {status}")]
    Refused {
        /// The status code.
        status: u16,
    },
    /// No response in time, or a server error; it is unknown whether a deletion took effect.
    #[error("the provider did not answer: {problem}")]
    Unavailable {
        /// The error.
        problem: String,
    },
    /// Its response is not what its API documents.
    #[error("malformed response of the provider: {problem}")]
    Malformed {
        /// The error.
        problem: String,
    },
}

impl ProviderError {
    /// The word in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::BreakerOpen { .. } => "breaker_open",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// The result of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The provider deleted it.
    Now,
    /// The provider does not know it.
    AlreadyGone,
}

/// The client of one process. Clones share the breaker, the pause and the connections.
#[derive(Clone, Debug)]
pub struct Provider {
    http: Http,
    breaker: Breaker,
    rest: Rest,
    clock: Clock,
}

#[derive(Deserialize)]
struct Page {
    results: Vec<serde_json::Value>,
    #[serde(default)]
    next: Option<String>,
}

impl Provider {
    /// A client for `config`; no call is made.
    pub fn new(config: &ProviderConfig, clock: Clock) -> Result<Self, ProviderError> {
        Ok(Self {
            http: Http::new(config, clock.clone())?,
            breaker: Breaker::new(),
            rest: Rest::default(),
            clock,
        })
    }

    /// The breaker.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Every active sandbox account, all pages. Waits after a 429.
    pub async fn accounts(&self) -> Result<Listed, ProviderError> {
        let mut listed = Listed::default();
        let mut seen = HashSet::new();
        let mut next = Some(self.http.at("/current_user/accounts")?);
        let mut pauses = 0;
        while let Some(uri) = next.take() {
            let page = match self.page(&uri).await {
                Err(ProviderError::RateLimited { again_after }) if pauses < PAUSES => {
                    pauses += 1;
                    tokio::time::sleep(again_after.min(LONGEST_PAUSE)).await;
                    next = Some(uri);
                    continue;
                }
                page => page?,
            };
            if !seen.insert(uri.to_string()) || seen.len() > MOST_PAGES {
                return Err(ProviderError::Malformed {
                    problem: format!("the list does not end: {uri} again"),
                });
            }
            for row in page.results {
                listed.add(serde_json::from_value::<Row>(row));
            }
            next = page.next.map(|next| self.http.follow(&next)).transpose()?;
        }
        Ok(listed)
    }

    /// Checks that the provider answers and accepts the token, with the first page of the list.
    pub async fn probe(&self) -> Result<(), ProviderError> {
        let uri = self.http.at("/current_user/accounts")?;
        self.page(&uri).await.map(drop)
    }

    /// Deletes an account.
    pub async fn delete(&self, account: &AccountId) -> Result<Deleted, ProviderError> {
        let uri = self.http.at(&format!("/sandbox/accounts/{account}"))?;
        let result = match self.call("delete", Method::DELETE, &uri).await {
            Ok(answer) => match answer.status {
                StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(Deleted::Now),
                StatusCode::NOT_FOUND => Ok(Deleted::AlreadyGone),
                status => Err(ProviderError::Refused { status: status.as_u16() }),
            },
            Err(error) => Err(error),
        };
        count("delete", result.as_ref().map(|_| ()));
        result
    }

    async fn page(&self, uri: &Uri) -> Result<Page, ProviderError> {
        let result = match self.call("list", Method::GET, uri).await {
            Ok(answer) if answer.status.is_success() => serde_json::from_slice(&answer.body)
                .map_err(|error| ProviderError::Malformed { problem: error.to_string() }),
            Ok(answer) => Err(ProviderError::Refused { status: answer.status.as_u16() }),
            Err(error) => Err(error),
        };
        count("list", result.as_ref().map(|_| ()));
        result
    }

    /// One call through the breaker: 5xx, timeouts and broken connections count against it, nothing else does.
    async fn call(
        &self,
        operation: &'static str,
        method: Method,
        uri: &Uri,
    ) -> Result<Answer, ProviderError> {
        if let Some(again_after) = self.rest.left(self.clock.instant()) {
            return Err(ProviderError::RateLimited { again_after });
        }
        let pass = self
            .breaker
            .pass(self.clock.instant())
            .map_err(|again_after| ProviderError::BreakerOpen { again_after })?;
        let began = self.clock.instant();
        let mut span = Span::client(|| span_of(&method, operation));
        let answer = self.http.call(method, uri, span.traceparent()).await;
        match &answer {
            Ok(answer) => span.set("http.response.status_code", i64::from(answer.status.as_u16())),
            Err(error) => span.failed(error.as_str()),
        }
        drop(span);
        let took = self.clock.instant().duration_since(began);
        metrics::histogram!("broker_provider_call_seconds", "operation" => operation).record(took);
        match answer {
            Ok(answer) if answer.status.is_server_error() => {
                pass.failed(self.clock.instant());
                Err(ProviderError::Unavailable { problem: format!("status {}", answer.status.as_u16()) })
            }
            Ok(answer) => {
                pass.succeeded();
                match answer.status {
                    StatusCode::TOO_MANY_REQUESTS => {
                        let again_after = answer.retry_after.unwrap_or(PAUSE);
                        self.rest.begin(self.clock.instant() + again_after);
                        Err(ProviderError::RateLimited { again_after })
                    }
                    StatusCode::UNAUTHORIZED => Err(ProviderError::Unauthorized),
                    _ => Ok(answer),
                }
            }
            Err(error) => {
                pass.failed(self.clock.instant());
                Err(error)
            }
        }
    }
}

/// The span of a call, named by the template of its path.
fn span_of(method: &Method, operation: &'static str) -> (Cow<'static, str>, Vec<KeyValue>) {
    let template = match operation {
        "delete" => "/sandbox/accounts/{uuid}",
        _ => "/current_user/accounts",
    };
    let attributes = vec![
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("url.template", template),
    ];
    (format!("{method} {template}").into(), attributes)
}

fn count(operation: &'static str, result: Result<(), &ProviderError>) {
    let outcome = result.map_or_else(ProviderError::as_str, |()| "ok");
    metrics::counter!("broker_provider_calls_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
}
