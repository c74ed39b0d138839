//! The provider: the outside system that the sandboxes are in, over its HTTP API (DESIGN.md, "Provider").
//!
//! Invariants: no call is unbounded; while the [`Breaker`] is open, or a 429 asked for a rest, nothing is asked; a list is whole or an error, never a
//! part of it; only pages of the provider's own origin are followed, so the token goes nowhere else. What it does not
//! do: retry (the next run does), pace (the table does), or decide what becomes of a sandbox.

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

/// The most pages of one list: a provider that never ends is no list.
const MOST_PAGES: usize = 10_000;
/// The longest pause that a list takes because it was told to slow down, and how often it does.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const PAUSES: usize = 5;
/// What is waited if a 429 does not say.
const PAUSE: Duration = Duration::from_secs(5);

/// Why the provider did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProviderError {
    /// It failed too often just now: it was not asked.
    #[error("the provider failed too often, it is not asked for another {} s", again_after.as_secs())]
    BreakerOpen {
        /// When it may be asked again.
        again_after: Duration,
    },
    /// It asks to slow down, or did a moment ago and was not asked.
    #[error("the provider asks to slow down for {} s", again_after.as_secs())]
    RateLimited {
        /// For how long.
        again_after: Duration,
    },
    /// It does not know our token.
    #[error("the provider does not accept the token: look at BROKER_PROVIDER_TOKEN")]
    Unauthorized,
    /// It refuses this call.
    #[error("the provider refuses with {status}")]
    Refused {
        /// The status code.
        status: u16,
    },
    /// It did not answer, or not in time, or with an error of its own; whether a deletion took effect is unknown.
    #[error("the provider did not answer: {problem}")]
    Unavailable {
        /// What happened.
        problem: String,
    },
    /// Its answer is not what its API promises.
    #[error("the provider's answer is wrong: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
}

impl ProviderError {
    /// The word for it in metrics.
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

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The provider deleted it.
    Now,
    /// The provider does not know it (any more).
    AlreadyGone,
}

/// The provider, seen by one process. Clones share the breaker, the rest and the connections.
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
    /// A client for `config`; nothing is asked yet.
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

    /// Every active sandbox account, all pages. A 429 is waited out.
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

    /// That it answers and knows us: its list is begun, and nothing is made of it.
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

    /// One call, seen by the breaker: 5xx, timeouts and broken connections count against it, nothing else does.
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

/// The span of a call: by the template of its path.
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
