//! Hooks of the stand-in: `POST /hooks/gate`, `/hooks/before-delete` and `/hooks/refill`, as examples of an operator's.
//!
//! Invariant: what is not signed by one of its secrets is refused with 401 (the verifier of Standard Webhooks judges), and
//! does nothing. The refill hook makes an account for each event id once, with the prefix that the event asks for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{Answer, Silence, StandIn, told};
use broker_runtime::config::HookSecret;

/// A hook of the stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookAt {
    /// Whether a sandbox may be offered.
    Gate,
    /// Before a sandbox is deleted.
    BeforeDelete,
    /// One more sandbox is needed.
    Refill,
}

impl HookAt {
    pub(super) fn parse(path: &str) -> Option<Self> {
        match path.strip_prefix("/hooks/")? {
            "gate" => Some(Self::Gate),
            "before-delete" => Some(Self::BeforeDelete),
            "refill" => Some(Self::Refill),
            _ => None,
        }
    }
}

/// The fault of one hook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookFault {
    /// The number of calls with the fault; absent, until the faults are replaced.
    pub times: Option<u32>,
    /// Only every n-th call has it.
    pub every: Option<u32>,
    /// Only calls whose event has this text somewhere in its data.
    pub only: Option<String>,
    /// The answer is delayed by this.
    pub delay_ms: u64,
    /// The answer has this status, and nothing is done.
    pub status: Option<u16>,
    /// With this `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// With this body.
    pub reason: Option<String>,
    /// It is done, and the connection breaks before the answer.
    pub lost: bool,
    /// Refill: two accounts are made.
    pub twice: bool,
    /// Refill: the answer is yes, and no account is made.
    pub lies: bool,
}

impl HookFault {
    /// The fault of call number `call` (from 1) with this event, or none.
    fn of_call(&mut self, call: u32, data: &Value) -> Self {
        let is_meant = self.only.as_ref().is_none_or(|only| data.to_string().contains(only.as_str()));
        if !is_meant || self.every.is_some_and(|every| !call.is_multiple_of(every.max(1))) {
            return Self::default();
        }
        match &mut self.times {
            Some(0) => Self::default(),
            Some(left) => {
                *left -= 1;
                self.clone()
            }
            None => self.clone(),
        }
    }
}

/// What the hooks heard and did.
#[derive(Debug, Default)]
pub(super) struct HookState {
    /// The events, in order.
    pub(super) heard: Vec<HeardEvent>,
    calls: u32,
    /// Events that made an account.
    done: BTreeSet<String>,
}

/// An event that a hook was sent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct HeardEvent {
    at_ms: u64,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: Value,
    /// The status of the answer.
    status: u16,
}

/// An event, as Standard Webhooks recommends it.
#[derive(Debug, Deserialize)]
struct SentEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

impl StandIn {
    /// The same stand-in with secrets for its hooks; without any, they refuse everything.
    #[must_use]
    pub fn with_hooks(self, secrets: &[HookSecret]) -> Self {
        let verifiers = secrets.iter().filter_map(|secret| Webhook::from_bytes(secret.key()).ok());
        Self { verifiers: Verifiers(verifiers.collect()), ..self }
    }

    /// Answers one event.
    pub(super) async fn hook(&self, at: HookAt, headers: &HeaderMap, body: &Bytes) -> Answer {
        if let Err(problem) = self.verifiers.verify(headers, body) {
            return Ok(told(StatusCode::UNAUTHORIZED, &json!({ "reason": problem })));
        }
        let event: SentEvent = match serde_json::from_slice(body) {
            Ok(event) => event,
            Err(error) => {
                return Ok(told(StatusCode::BAD_REQUEST, &json!({ "reason": error.to_string() })));
            }
        };
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let fault = self.world.hook_fault(at, &event.data);
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        let now = self.clock.now();
        let status = fault.status.and_then(|status| StatusCode::from_u16(status).ok());
        if status.is_none() && at == HookAt::Refill && event.kind == "refill.requested" {
            let prefix = event.data.get("prefix").and_then(Value::as_str).unwrap_or_default();
            let count = usize::from(!fault.lies) + usize::from(fault.twice);
            self.world.make_once(&id, prefix, count, now);
        }
        let status = status.unwrap_or(StatusCode::NO_CONTENT);
        self.world.heard(HeardEvent {
            at_ms: now.as_ms(),
            id,
            kind: event.kind,
            data: event.data,
            status: status.as_u16(),
        });
        if fault.lost { Err(Silence) } else { Ok(fault.answer(status)) }
    }
}

impl HookFault {
    fn answer(&self, status: StatusCode) -> Response<Full<Bytes>> {
        let reason = self.reason.as_deref().unwrap_or("a planted fault");
        let mut answer = told(status, &json!({ "reason": reason }));
        let after = self.retry_after_s.and_then(|seconds| HeaderValue::from_str(&seconds.to_string()).ok());
        if let Some(after) = after {
            answer.headers_mut().insert(header::RETRY_AFTER, after);
        }
        answer
    }
}

/// The secrets of the hooks.
#[derive(Clone, Default)]
pub(super) struct Verifiers(Arc<[Webhook]>);

impl std::fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verifiers").field(&self.0.len()).finish()
    }
}

impl Verifiers {
    fn verify(&self, headers: &HeaderMap, body: &Bytes) -> Result<(), String> {
        let mut problem = "the stand-in has no secret".to_owned();
        for verifier in self.0.iter() {
            match verifier.verify(body, headers) {
                Ok(()) => return Ok(()),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(problem)
    }
}

impl super::World {
    fn hook_fault(&self, at: HookAt, data: &Value) -> HookFault {
        let mut state = self.state();
        state.hooks.calls += 1;
        let call = state.hooks.calls;
        let fault = match at {
            HookAt::Gate => &mut state.faults.gate,
            HookAt::BeforeDelete => &mut state.faults.before_delete,
            HookAt::Refill => &mut state.faults.refill,
        };
        fault.of_call(call, data)
    }

    fn heard(&self, heard: HeardEvent) {
        self.state().hooks.heard.push(heard);
    }

    /// Makes accounts for an event, unless it was heard before.
    fn make_once(&self, id: &str, prefix: &str, count: usize, now: broker_domain::Timestamp) {
        let mut state = self.state();
        if count > 0 && state.hooks.done.insert(id.to_owned()) {
            (0..count).for_each(|_| state.make_named(prefix, now));
        }
    }
}
