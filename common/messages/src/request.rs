//! What the API asks of the workers.

use serde::{Deserialize, Serialize};

use super::Envelope;
use broker_domain::{
    AllocateRequest, Fingerprint, IdempotencyKey, LeaseKey, MarkRequest, NamePrefix, SandboxId, TrackId,
    TrackName,
};

/// One message of the requests queue.
pub type RequestMessage = Envelope<String, Body>;

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
        Self::around(body, ask.request_id, reply_to.into(), ask.times, ask.asynchronous)
    }

    /// The message for a return.
    pub fn mark(mark: &MarkRequest, reply_to: impl Into<String>) -> Self {
        let body =
            Body::MarkForDeletion { track_id: mark.track.clone(), sandbox_id: mark.sandbox_id.clone() };
        Self::around(body, mark.request_id, reply_to.into(), mark.times, false)
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
