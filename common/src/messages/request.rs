//! What the API asks of the workers.

use serde::{Deserialize, Serialize};

use super::{DecodeError, VERSION, decode, encode};
use crate::domain::{
    AllocateRequest, Fingerprint, IdempotencyKey, LeaseKey, MarkRequest, NamePrefix, RequestId, SandboxId,
    Times, Timestamp, TrackId, TrackName,
};

/// One message of the requests queue.
///
/// `enqueued_at_ms` keeps its value through redelivery and replay. `reply_to` is a queue name that the reader must check
/// against `{prefix}-replies-{uuid}` before it sends anything there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMessage {
    v: u32,
    /// Correlates the reply.
    pub request_id: RequestId,
    /// The name of the reply queue of the process that waits.
    pub reply_to: String,
    /// When the API enqueued it.
    pub enqueued_at_ms: u64,
    /// Until when a caller waits for the reply.
    pub reply_by_ms: u64,
    /// After this nothing is claimed.
    pub deadline_ms: u64,
    /// Whether nobody waits and the outcome is stored.
    #[serde(rename = "async")]
    pub asynchronous: bool,
    /// W3C trace context of the HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What is asked.
    pub body: Body,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A sandbox, please.
    Allocate {
        /// For whom.
        track_id: TrackId,
        /// Under which key; absent, the track id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<IdempotencyKey>,
        /// The digest of the request.
        fingerprint: Fingerprint,
        /// The lab.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        track_name: Option<TrackName>,
        /// Only names that begin so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<NamePrefix>,
        /// For how long, 1 to 168.
        lab_duration_hours: u16,
    },
    /// Take this sandbox back.
    MarkForDeletion {
        /// Who says so.
        track_id: TrackId,
        /// Which.
        sandbox_id: SandboxId,
    },
}

impl Body {
    /// The word for it in logs, metrics and dead letters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Allocate { .. } => "allocate",
            Self::MarkForDeletion { .. } => "mark_for_deletion",
        }
    }

    /// Whose request it is.
    pub const fn track(&self) -> &TrackId {
        match self {
            Self::Allocate { track_id, .. } | Self::MarkForDeletion { track_id, .. } => track_id,
        }
    }
}

impl RequestMessage {
    /// The message for an allocation.
    pub fn allocate(ask: &AllocateRequest, reply_to: impl Into<String>) -> Self {
        let body = Body::Allocate {
            track_id: ask.lease_key.track.clone(),
            idempotency_key: ask.key_is_explicit.then(|| ask.lease_key.key.clone()),
            fingerprint: ask.fingerprint.clone(),
            track_name: ask.track_name.clone(),
            prefix: ask.prefix.clone(),
            lab_duration_hours: ask.lab_duration_hours,
        };
        Self::new(ask.request_id, reply_to.into(), ask.times, ask.asynchronous, body)
    }

    /// The message for a return.
    pub fn mark(mark: &MarkRequest, reply_to: impl Into<String>) -> Self {
        let body =
            Body::MarkForDeletion { track_id: mark.track.clone(), sandbox_id: mark.sandbox_id.clone() };
        Self::new(mark.request_id, reply_to.into(), mark.times, false, body)
    }

    fn new(request_id: RequestId, reply_to: String, times: Times, asynchronous: bool, body: Body) -> Self {
        Self {
            v: VERSION,
            request_id,
            reply_to,
            enqueued_at_ms: times.enqueued_at.as_ms(),
            reply_by_ms: times.reply_by.as_ms(),
            deadline_ms: times.deadline.as_ms(),
            asynchronous,
            traceparent: None,
            body,
        }
    }

    /// The times it carries.
    pub const fn times(&self) -> Times {
        Times {
            enqueued_at: Timestamp::from_ms(self.enqueued_at_ms),
            reply_by: Timestamp::from_ms(self.reply_by_ms),
            deadline: Timestamp::from_ms(self.deadline_ms),
        }
    }

    /// As JSON text.
    pub fn encode(&self) -> String {
        encode(self)
    }

    /// From JSON text.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        decode(text)
    }
}

/// What a decoded message asks, in the domain's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// An allocation.
    Allocate(AllocateRequest),
    /// A return.
    Mark(MarkRequest),
}

impl From<RequestMessage> for Ask {
    fn from(message: RequestMessage) -> Self {
        let times = message.times();
        match message.body {
            Body::Allocate {
                track_id,
                idempotency_key,
                fingerprint,
                track_name,
                prefix,
                lab_duration_hours,
            } => {
                let key_is_explicit = idempotency_key.is_some();
                let key = idempotency_key.unwrap_or_else(|| IdempotencyKey::from(&track_id));
                Self::Allocate(AllocateRequest {
                    request_id: message.request_id,
                    lease_key: LeaseKey { track: track_id, key },
                    key_is_explicit,
                    fingerprint,
                    track_name,
                    prefix,
                    lab_duration_hours,
                    asynchronous: message.asynchronous,
                    times,
                })
            }
            Body::MarkForDeletion { track_id, sandbox_id } => {
                Self::Mark(MarkRequest { request_id: message.request_id, track: track_id, sandbox_id, times })
            }
        }
    }
}
