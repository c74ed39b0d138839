//! Outcomes of requests, as workers send them and the API maps them to HTTP.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{FlavourName, Grant, JobReport, SandboxId, Status, Timestamp};

/// The outcome of a request. The API's `response::outcome` maps it to HTTP, and nothing else does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A new allocation.
    Created(Grant),
    /// The key held this sandbox already.
    Existing(Grant),
    /// Nothing suitable is available, and the key holds nothing.
    NoSandboxes,
    /// The tenant holds as many as it may, or others of it wait before this one, and the key holds nothing.
    QuotaExceeded(Quota),
    /// The explicit key holds a sandbox for a different request.
    KeyReused,
    /// The key's lease ended after the request was made; the caller may safely repeat it.
    Superseded,
    /// The sandbox is given back.
    Marked {
        /// Its id.
        sandbox_id: SandboxId,
        /// When its deletion was requested.
        deletion_requested_at: Timestamp,
        /// Its state. An older program says none: it is pending deletion.
        #[serde(default = "pending_deletion", skip_serializing_if = "is_pending_deletion")]
        status: Status,
    },
    /// The sandbox is not the caller's.
    NotOwner,
    /// Expiry has ended the caller's lease.
    AllocationExpired,
    /// There is no such sandbox.
    SandboxNotFound,
    /// The deadline passed before a worker could act; nothing was claimed.
    Expired,
    /// The caller cancelled the request.
    Cancelled,
    /// A job ran to its end, or stopped early and reports why.
    Ran(JobReport),
    /// The message could not be processed and was kept as a dead letter.
    DeadLettered {
        /// The reason's code.
        reason: String,
    },
    /// An outcome of a newer program.
    #[serde(untagged)]
    Unknown(NewerOutcome),
}

const fn pending_deletion() -> Status {
    Status::PendingDeletion
}

fn is_pending_deletion(status: &Status) -> bool {
    *status == Status::PendingDeletion
}

/// A limit and its use, as a request met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The flavour that is limited.
    pub flavour: FlavourName,
    /// How many the tenant holds.
    pub held: u32,
    /// How many it may hold.
    pub max: u32,
}

/// An outcome that this program does not know, kept as a newer one wrote it: told on, it loses nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NewerOutcome(Map<String, Value>);

/// The words of the outcomes that this program knows.
const KNOWN: [&str; 14] = [
    "created",
    "existing",
    "no_sandboxes",
    "quota_exceeded",
    "key_reused",
    "superseded",
    "marked",
    "not_owner",
    "allocation_expired",
    "sandbox_not_found",
    "expired",
    "cancelled",
    "ran",
    "dead_lettered",
];

impl<'de> Deserialize<'de> for NewerOutcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let is_newer =
            fields.get("outcome").and_then(Value::as_str).is_some_and(|word| !KNOWN.contains(&word));
        is_newer.then_some(Self(fields)).ok_or_else(|| D::Error::custom("no valid outcome"))
    }
}

impl Outcome {
    /// What the owner is told that he has, if he has something.
    pub const fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Created(grant) | Self::Existing(grant) => Some(grant),
            Self::NoSandboxes
            | Self::QuotaExceeded(_)
            | Self::KeyReused
            | Self::Superseded
            | Self::Marked { .. }
            | Self::NotOwner
            | Self::AllocationExpired
            | Self::SandboxNotFound
            | Self::Expired
            | Self::Cancelled
            | Self::Ran(_)
            | Self::DeadLettered { .. }
            | Self::Unknown(_) => None,
        }
    }

    /// The sandbox that was given back, if one was.
    pub const fn returned(&self) -> Option<&SandboxId> {
        match self {
            Self::Marked { sandbox_id, .. } => Some(sandbox_id),
            Self::Created(_)
            | Self::Existing(_)
            | Self::NoSandboxes
            | Self::QuotaExceeded(_)
            | Self::KeyReused
            | Self::Superseded
            | Self::NotOwner
            | Self::AllocationExpired
            | Self::SandboxNotFound
            | Self::Expired
            | Self::Cancelled
            | Self::Ran(_)
            | Self::DeadLettered { .. }
            | Self::Unknown(_) => None,
        }
    }

    /// The word in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Existing(_) => "existing",
            Self::NoSandboxes => "no_sandboxes",
            Self::QuotaExceeded(_) => "quota_exceeded",
            Self::KeyReused => "key_reused",
            Self::Superseded => "superseded",
            Self::Marked { .. } => "marked",
            Self::NotOwner => "not_owner",
            Self::AllocationExpired => "allocation_expired",
            Self::SandboxNotFound => "sandbox_not_found",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Ran(_) => "ran",
            Self::DeadLettered { .. } => "dead_lettered",
            Self::Unknown(_) => "unknown",
        }
    }
}
