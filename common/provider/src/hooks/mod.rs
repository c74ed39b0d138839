//! Client of the hooks: URLs of the operator's that are sent signed events and answer yes, no or later (Standard Webhooks).
//!
//! Invariants: every request is signed with every secret, or not sent. A connection goes to a public address, or to one that
//! the operator lists (`BROKER_HOOK_NETWORKS`); the address is checked when it is connected to, so a name that resolves
//! to another one by then does not pass. No redirects, no retries; the time, the request and the answer are bounded. Each
//! URL has a breaker of its own. When an event is sent again is the caller's decision, with the same id: the hook may have
//! heard it before.

mod answer;
mod event;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use opentelemetry::KeyValue;
use url::Url;

pub use answer::HookAnswer;
pub use event::{HookEvent, HookKind};

use super::breaker::Breaker;
use super::http::{CONNECT, TRACEPARENT, retry_after};
use broker_domain::policy::{Hook, Policy};
use broker_runtime::clock::Clock;
use broker_runtime::config::{HookSecret, HooksConfig};
use broker_runtime::errors;
use broker_runtime::https::{self, Guard, NotWhole};
use broker_runtime::trace::Span;

/// The largest event that is sent, in bytes.
const LARGEST_REQUEST: usize = 64 * 1024;
/// The largest answer that is read, in bytes; of a longer one only the status counts.
const LARGEST_ANSWER: usize = 16 * 1024;
/// The most URLs whose breakers are kept.
const MOST_ENDPOINTS: usize = 1_000;

/// The hooks, seen by one process. Clones share breakers and connections.
#[derive(Clone, Debug)]
pub struct Hooks {
    secrets: Arc<[HookSecret]>,
    guard: Guard,
    endpoints: Arc<Mutex<HashMap<Url, Endpoint>>>,
    clock: Clock,
}

/// A hook that is not asked, because it failed so often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingHook {
    /// What it is asked.
    pub kind: HookKind,
    /// For how long.
    pub since: Duration,
    /// The last failure.
    pub why: String,
}

/// One URL.
#[derive(Clone, Debug)]
struct Endpoint {
    client: https::GuardedClient<Full<Bytes>>,
    uri: Uri,
    breaker: Breaker,
}

impl Hooks {
    /// A client with the settings `config`; nothing is sent yet.
    pub fn new(config: &HooksConfig, clock: Clock) -> Self {
        let secrets = config.secrets.clone().into();
        Self { secrets, guard: Guard::new(config.networks.clone()), endpoints: Arc::default(), clock }
    }

    /// Whether there is a secret to sign with.
    pub fn can_sign(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Sends `event` to `hook` once, unless its breaker is open.
    pub async fn ask(&self, hook: &Hook, event: &HookEvent) -> HookAnswer {
        let answer = self.ask_unless_open(hook, event).await;
        count(event, &answer);
        answer
    }

    /// Sends `event` to `hook` once, whatever its breaker says: for callers that have a breaker of their own.
    pub async fn call(&self, hook: &Hook, event: &HookEvent) -> HookAnswer {
        let answer = match self.endpoint(&hook.url) {
            Ok(endpoint) => self.send(&endpoint, hook, event).await,
            Err(problem) => HookAnswer::failed(problem),
        };
        count(event, &answer);
        answer
    }

    /// The hooks of `policy` whose breakers are not closed: of each kind the one that has failed for longest.
    pub fn failing(&self, policy: &Policy) -> Vec<FailingHook> {
        let now = self.clock.instant();
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = |kind, hook: &Hook| {
            let (since, why) = endpoints.get(&hook.url)?.breaker.failing_for(now)?;
            Some(FailingHook { kind, since, why })
        };
        let gates = policy.flavours().values().filter_map(|flavour| flavour.gate.as_ref());
        let gates = gates.filter_map(|gate| failing(HookKind::Check, &gate.hook));
        let deletions = policy.flavours().values().filter_map(|flavour| flavour.before_delete.as_ref());
        let deletions = deletions.filter_map(|before| failing(HookKind::BeforeDelete, &before.hook));
        let longest = [gates.max_by_key(|one| one.since), deletions.max_by_key(|one| one.since)];
        longest.into_iter().flatten().collect()
    }

    async fn ask_unless_open(&self, hook: &Hook, event: &HookEvent) -> HookAnswer {
        let endpoint = match self.endpoint(&hook.url) {
            Ok(endpoint) => endpoint,
            Err(problem) => return HookAnswer::failed(problem),
        };
        let pass = match endpoint.breaker.pass(self.clock.instant()) {
            Ok(pass) => pass,
            Err(shut) => return HookAnswer::NotAsked { again_after: shut.again_after, why: shut.why },
        };
        let answer = self.send(&endpoint, hook, event).await;
        match &answer {
            HookAnswer::Failed { problem, .. } => pass.failed(self.clock.instant(), problem),
            HookAnswer::Yes { .. } | HookAnswer::No { .. } | HookAnswer::Later { .. } => pass.succeeded(),
            HookAnswer::NotAsked { .. } => drop(pass),
        }
        answer
    }

    async fn send(&self, endpoint: &Endpoint, hook: &Hook, event: &HookEvent) -> HookAnswer {
        let host = endpoint.uri.host().unwrap_or_default();
        if let Err(error) = self.guard.check_host(host) {
            return HookAnswer::failed(error.to_string());
        }
        let kind = event.kind.as_str();
        let attributes =
            || vec![KeyValue::new("http.request.method", "POST"), KeyValue::new("broker.hook.event", kind)];
        let mut span = Span::client(|| (format!("POST hook {kind}").into(), attributes()));
        let request = match self.request(endpoint, event, span.traceparent().as_deref()) {
            Ok(request) => request,
            Err(problem) => return HookAnswer::failed(problem),
        };
        let began = self.clock.instant();
        let call = async {
            let response = endpoint.client.request(request).await.map_err(|error| errors::chain(&error))?;
            let (head, body) = response.into_parts();
            let body = match https::whole(body, LARGEST_ANSWER).await {
                Ok(body) => Some(body),
                Err(NotWhole::TooLarge { .. }) => None,
                Err(NotWhole::Broken(problem)) => return Err(problem),
            };
            let wait = retry_after(&head.headers, self.clock.now());
            Ok((head.status, HookAnswer::of(head.status, wait, body.as_deref())))
        };
        let answer: Result<(StatusCode, HookAnswer), String> =
            match tokio::time::timeout(hook.timeout, call).await {
                Ok(answer) => answer,
                Err(_elapsed) => Err(format!("no answer within {} s", hook.timeout.as_secs())),
            };
        let took = self.clock.instant().duration_since(began);
        metrics::histogram!("broker_hook_call_seconds", "event" => kind).record(took);
        match answer {
            Ok((status, answer)) => {
                span.set("http.response.status_code", i64::from(status.as_u16()));
                answer
            }
            Err(problem) => {
                span.failed("no_answer");
                HookAnswer::failed(problem)
            }
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        event: &HookEvent,
        traceparent: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, String> {
        if !self.can_sign() {
            return Err("no secret to sign with: set BROKER_HOOK_SECRETS".to_owned());
        }
        let body = event.body();
        if body.len() > LARGEST_REQUEST {
            return Err(format!("an event of {} bytes is not sent, {LARGEST_REQUEST} at most", body.len()));
        }
        let seconds = self.clock.now().as_secs();
        let signatures = signature::sign(&self.secrets, &event.id, seconds, &body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("sandbox-broker/", env!("CARGO_PKG_VERSION"))),
        );
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| format!("{text:?} is not a valid header value"))
        };
        headers.insert(signature::ID, value(&event.id)?);
        headers.insert(signature::TIMESTAMP, HeaderValue::from(seconds));
        headers.insert(signature::SIGNATURE, value(&signatures)?);
        if let Some(context) = traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(TRACEPARENT, context);
        }
        Ok(request)
    }

    /// What is kept of a URL, new if it is.
    fn endpoint(&self, url: &Url) -> Result<Endpoint, String> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(url) {
            return Ok(endpoint.clone());
        }
        // URLs of policies that were replaced.
        if endpoints.len() >= MOST_ENDPOINTS {
            endpoints.clear();
        }
        let uri: Uri = url.as_str().parse().map_err(|error| format!("{url} is no URL: {error}"))?;
        let client = https::guarded_client(&uri, CONNECT, self.guard.clone())?;
        let endpoint = Endpoint { client, uri, breaker: Breaker::of_hook() };
        endpoints.insert(url.clone(), endpoint.clone());
        Ok(endpoint)
    }
}

fn count(event: &HookEvent, answer: &HookAnswer) {
    let labels = [("event", event.kind.as_str()), ("outcome", answer.as_str())];
    metrics::counter!("broker_hook_calls_total", &labels).increment(1);
}
