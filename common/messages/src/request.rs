//! Messages of the requests queue: allocate and return.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Envelope, OLDEST, VERSION};
use broker_domain::{
    AllocateRequest, Fingerprint, Heartbeat, IdempotencyKey, LabDuration, LeaseKey, NamePrefix,
    PersistedRequest, RequestState, ReturnRequest, SandboxId, Subject, TrackId, TrackName,
};

/// One message of the requests queue.
pub type RequestMessage = Envelope<String, Body>;

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Allocate a sandbox.
    Allocate {
        /// The owner.
        track_id: TrackId,
        /// The key; absent, the track id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<IdempotencyKey>,
        /// The digest of the parameters.
        fingerprint: Fingerprint,
        /// The lab.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        track_name: Option<TrackName>,
        /// Accepts only names that begin with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<NamePrefix>,
        /// For how long.
        #[serde(rename = "lab_duration_hours", deserialize_with = "lab_duration")]
        lab_duration: LabDuration,
        /// How often its owner will say that it lives. A worker that does not know it would lend the sandbox without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heartbeat_s: Option<Heartbeat>,
        /// Whether it waits in a line until its deadline. A worker that knows no lines would answer that there is none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        may_wait: bool,
        /// Whether its tenant has a limit. A worker that knows no permits would claim beyond it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        limited: bool,
    },
    /// Return a sandbox.
    MarkForDeletion {
        /// The track that returns it.
        track_id: TrackId,
        /// The sandbox.
        sandbox_id: SandboxId,
    },
}

/// The hours, or an error that names the member: the type's own words fit any.
fn lab_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LabDuration, D::Error> {
    let hours = u64::deserialize(deserializer)?;
    LabDuration::new(hours).map_err(|error| D::Error::custom(format!("lab_duration_hours {error}")))
}

impl Body {
    /// Whether a record of it is written before it is sent, although its caller waits.
    pub const fn may_wait(&self) -> bool {
        match self {
            Self::Allocate { may_wait, .. } => *may_wait,
            Self::MarkForDeletion { .. } => false,
        }
    }

    /// The version that a worker must read to do what it says.
    const fn version(&self) -> u32 {
        match self {
            Self::Allocate { heartbeat_s: Some(_), .. }
            | Self::Allocate { may_wait: true, .. }
            | Self::Allocate { limited: true, .. } => VERSION,
            Self::Allocate { .. } | Self::MarkForDeletion { .. } => OLDEST,
        }
    }

    /// The word in logs, metrics and dead letters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Allocate { .. } => "allocate",
            Self::MarkForDeletion { .. } => "mark_for_deletion",
        }
    }

    /// The key of the lease that it asks for, if it asks for one; the owner's default is the track id.
    pub fn idempotency_key(&self) -> Option<&str> {
        match self {
            Self::Allocate { track_id, idempotency_key, .. } => {
                Some(idempotency_key.as_ref().map_or_else(|| track_id.as_str(), |key| key.as_str()))
            }
            Self::MarkForDeletion { .. } => None,
        }
    }

    /// The track that made the request.
    pub const fn track(&self) -> &TrackId {
        match self {
            Self::Allocate { track_id, .. } | Self::MarkForDeletion { track_id, .. } => track_id,
        }
    }
}

impl RequestMessage {
    /// The message for an allocation.
    pub fn allocate(request: &AllocateRequest, reply_to: impl Into<String>) -> Self {
        let body = Body::Allocate {
            track_id: request.lease_key.track.clone(),
            idempotency_key: request.key_is_explicit.then(|| request.lease_key.key.clone()),
            fingerprint: request.fingerprint.clone(),
            track_name: request.track_name.clone(),
            prefix: request.prefix.clone(),
            lab_duration: request.lab_duration,
            heartbeat_s: request.heartbeat,
            may_wait: request.may_wait,
            limited: request.limited,
        };
        let message = Self::around(
            body.version(),
            body,
            request.request_id,
            reply_to.into(),
            request.times,
            request.asynchronous,
        );
        Self { tenant: request.tenant.clone(), ..message }
    }

    /// The message for a return.
    pub fn return_sandbox(request: &ReturnRequest, reply_to: impl Into<String>) -> Self {
        let body =
            Body::MarkForDeletion { track_id: request.track.clone(), sandbox_id: request.sandbox_id.clone() };
        Self::around(OLDEST, body, request.request_id, reply_to.into(), request.times, false)
    }
}

/// A decoded request in the domain's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An allocation.
    Allocate(AllocateRequest),
    /// A return.
    Return(ReturnRequest),
}

impl From<&RequestMessage> for Request {
    fn from(message: &RequestMessage) -> Self {
        let (request_id, times) = (message.request_id, message.times());
        match &message.body {
            Body::Allocate {
                track_id,
                idempotency_key,
                fingerprint,
                track_name,
                prefix,
                lab_duration,
                heartbeat_s,
                may_wait,
                limited,
            } => {
                let key = idempotency_key.clone().unwrap_or_else(|| IdempotencyKey::from(track_id));
                Self::Allocate(AllocateRequest {
                    request_id,
                    lease_key: LeaseKey { track: track_id.clone(), key },
                    key_is_explicit: idempotency_key.is_some(),
                    fingerprint: fingerprint.clone(),
                    track_name: track_name.clone(),
                    prefix: prefix.clone(),
                    lab_duration: *lab_duration,
                    heartbeat: *heartbeat_s,
                    may_wait: *may_wait,
                    limited: *limited,
                    tenant: message.tenant.clone(),
                    asynchronous: message.asynchronous,
                    times,
                })
            }
            Body::MarkForDeletion { track_id, sandbox_id } => Self::Return(ReturnRequest {
                request_id,
                track: track_id.clone(),
                sandbox_id: sandbox_id.clone(),
                times,
            }),
        }
    }
}

impl Request {
    /// Its record in `state`; `message` is its text, for a request that is queued.
    pub fn record(&self, message: Option<String>, state: RequestState) -> PersistedRequest {
        let (request_id, times, asynchronous) = match self {
            Self::Allocate(request) => (request.request_id, request.times, request.is_recorded()),
            Self::Return(request) => (request.request_id, request.times, false),
        };
        PersistedRequest {
            request_id,
            track: self.track().clone(),
            subject: self.subject(),
            asynchronous,
            message,
            state,
            parked: None,
            created_at: times.enqueued_at,
            deadline: times.deadline,
        }
    }

    /// Its message to the workers, who reply to `reply_to`.
    pub fn message(&self, reply_to: impl Into<String>) -> RequestMessage {
        match self {
            Self::Allocate(request) => RequestMessage::allocate(request, reply_to),
            Self::Return(request) => RequestMessage::return_sandbox(request, reply_to),
        }
    }

    /// What it is about, as its record says it.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Allocate(request) => Subject::Allocate(request.lease_key.clone()),
            Self::Return(mark) => Subject::Return(mark.sandbox_id.clone()),
        }
    }

    /// Whose request it is.
    pub const fn track(&self) -> &TrackId {
        match self {
            Self::Allocate(request) => &request.lease_key.track,
            Self::Return(mark) => &mark.track,
        }
    }
}
