//! The allocation: who has a sandbox, by which key, until when, and why that ended.

use serde::{Deserialize, Serialize};

use super::{
    AllocationId, ExternalId, IdempotencyKey, LabDuration, Permit, ProviderAttributes, SandboxId,
    SandboxName, Timestamp, TrackId, TrackName,
};

/// Whose lease it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The owner.
    pub track: TrackId,
    /// The owner's key; the track id if the request had none.
    pub key: IdempotencyKey,
}

/// The owner of a sandbox, and the owner's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The allocation id of the claim.
    pub id: AllocationId,
    /// The lease that points here.
    pub lease_key: LeaseKey,
    /// The lab.
    pub track_name: Option<TrackName>,
    /// When it was claimed.
    pub allocated_at: Timestamp,
    /// When the owner's time ends.
    pub expires_at: Timestamp,
    /// The permit that it holds until it ends, if its tenant was limited when it was claimed.
    pub permit: Option<Permit>,
}

impl Allocation {
    /// When its lease ends if an operator adds `by` at `now`; `None` if that is too far from `now` for any lease.
    pub fn extended(&self, by: LabDuration, now: Timestamp) -> Option<Timestamp> {
        let expires_at = self.expires_at.max(now).floor_to_second().plus(by.as_duration());
        (expires_at <= now.plus(LabDuration::LONGEST.as_duration())).then_some(expires_at)
    }
}

/// The sandbox as its owner is shown it. Times have second precision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The broker's id.
    pub sandbox_id: SandboxId,
    /// The provider's name for it.
    pub name: SandboxName,
    /// The provider's id.
    pub external_id: ExternalId,
    /// The lab it was asked for.
    pub track_name: Option<TrackName>,
    /// When it was claimed.
    pub allocated_at: Timestamp,
    /// When the owner's time ends.
    pub expires_at: Timestamp,
    /// The provider's attributes.
    #[serde(default, skip_serializing_if = "ProviderAttributes::is_empty")]
    pub attributes: ProviderAttributes,
}

/// The reason why a lease ended.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The owner returned the sandbox. The word is older than the name.
    #[serde(rename = "marked")]
    #[strum(serialize = "marked")]
    Returned,
    /// Its time was over.
    Expired,
    /// Its owner was silent for three heartbeats.
    Abandoned,
    /// An operator released it.
    Released,
    /// Its owner reported the sandbox broken.
    Reported,
    /// A reason of a newer program.
    #[serde(other)]
    Unknown,
}

impl EndReason {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From the stored word.
    pub fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}
