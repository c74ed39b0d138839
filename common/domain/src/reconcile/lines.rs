//! The lines of what was handed out: what the old table, the logs of the workers or the platform know, whatever the
//! restored table says.
//!
//! Invariant: the order of the lines means nothing. Several lines of one sandbox are one: an owner, a key or a time that one
//! of them knows is known, and a return that one of them knows has happened; what contradicts itself is a conflict.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Allocation, ExternalId, IdempotencyKey, Lease, LeaseKey, Sandbox, SandboxId, SandboxName, Status,
    Timestamp, TrackId, TrackName,
};

/// The longest that a lease may still last.
const LONGEST: Duration = Duration::from_secs(168 * 3_600);

/// One line of what was handed out: a sandbox, and what is known of it. `broker pool list --handed-out` writes it,
/// `broker pool reconcile` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedOut {
    /// Ours.
    pub sandbox_id: SandboxId,
    /// The provider's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SandboxName>,
    /// The provider's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<ExternalId>,
    /// Whose it is, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackId>,
    /// The key; the track id if the owner gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_name: Option<TrackName>,
    /// When it was handed out, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_at: Option<u64>,
    /// When the owner's time is over, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Whether it was given back, or taken back.
    #[serde(default)]
    pub returned: bool,
}

impl HandedOut {
    /// What a table knows of a sandbox that was ever handed out; `None` for any other.
    pub fn of_sandbox(sandbox: &Sandbox) -> Option<Self> {
        let in_hands = match sandbox.status {
            Status::Allocated => true,
            Status::PendingDeletion | Status::DeletionFailed | Status::Deleted => false,
            Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Quarantined => {
                sandbox.allocation.as_ref().map(|_| false)?
            }
            // To hold one too long is safe, to take it from its owner is not.
            Status::Unknown => sandbox.allocation.as_ref().map(|_| true)?,
        };
        let allocation = sandbox.allocation.as_ref();
        Some(Self {
            sandbox_id: sandbox.id.clone(),
            name: Some(sandbox.name.clone()),
            external_id: Some(sandbox.external_id.clone()),
            track: allocation.map(|allocation| allocation.lease_key.track.clone()),
            idempotency_key: allocation.map(|allocation| allocation.lease_key.key.clone()),
            track_name: allocation.and_then(|allocation| allocation.track_name.clone()),
            allocated_at: allocation.map(|allocation| allocation.allocated_at.as_secs()),
            expires_at: allocation.map(|allocation| allocation.expires_at.as_secs()),
            returned: !in_hands,
        })
    }

    /// What a live lease says: its sandbox may have been read before it was claimed.
    pub fn of_lease(lease: &Lease) -> Self {
        let grant = &lease.grant;
        Self {
            sandbox_id: grant.sandbox_id.clone(),
            name: Some(grant.name.clone()),
            external_id: Some(grant.external_id.clone()),
            track: Some(lease.key.track.clone()),
            idempotency_key: Some(lease.key.key.clone()),
            track_name: grant.track_name.clone(),
            allocated_at: Some(grant.allocated_at.as_secs()),
            expires_at: Some(grant.expires_at.as_secs()),
            returned: false,
        }
    }

    /// The lease's key, if the owner is known.
    pub(super) fn key(&self) -> Option<LeaseKey> {
        self.track.as_ref().map(|track| LeaseKey {
            key: self.idempotency_key.clone().unwrap_or_else(|| IdempotencyKey::from(track)),
            track: track.clone(),
        })
    }

    /// Whether `allocation` may be what this line speaks of.
    pub(super) fn speaks_of(&self, allocation: &Allocation) -> bool {
        let key = &allocation.lease_key;
        self.track.as_ref().is_none_or(|track| *track == key.track)
            && self.idempotency_key.as_ref().is_none_or(|named| *named == key.key)
    }

    /// What is wrong with its times at `now`, if anything is: milliseconds where seconds belong would last for ever.
    pub fn problem(&self, now: Timestamp) -> Option<String> {
        let latest = now.plus(LONGEST).as_secs();
        let over = |name, at: Option<u64>, latest| {
            at.filter(|at| *at > latest)
                .map(|at| format!("{name} {at} is too late, in seconds since the epoch"))
        };
        over("expires_at", self.expires_at, latest).or_else(|| {
            over("allocated_at", self.allocated_at, now.plus(Duration::from_secs(3_600)).as_secs())
        })
    }

    /// This line and another one of the same sandbox as one.
    fn and(self, other: Self) -> Result<Self, String> {
        let id = &self.sandbox_id;
        Ok(Self {
            name: either(self.name, other.name).or_else(|(a, b)| Ok::<_, String>(Some(a.max(b))))?,
            external_id: either(self.external_id, other.external_id)
                .map_err(|(a, b)| format!("lines of {id} name two accounts: {a}, {b}"))?,
            track: either(self.track, other.track)
                .map_err(|(a, b)| format!("lines of {id} name two owners: {a}, {b}"))?,
            idempotency_key: either(self.idempotency_key, other.idempotency_key)
                .map_err(|(a, b)| format!("lines of {id} name two keys: {a}, {b}"))?,
            track_name: either(self.track_name, other.track_name)
                .or_else(|(a, b)| Ok::<_, String>(Some(a.max(b))))?,
            allocated_at: self
                .allocated_at
                .min(other.allocated_at)
                .or(self.allocated_at)
                .or(other.allocated_at),
            expires_at: self.expires_at.max(other.expires_at),
            returned: self.returned || other.returned,
            sandbox_id: self.sandbox_id,
        })
    }
}

/// What one or both know; both, if they differ.
fn either<T: PartialEq>(a: Option<T>, b: Option<T>) -> Result<Option<T>, (T, T)> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err((a, b)),
        (Some(known), _) | (None, Some(known)) => Ok(Some(known)),
        (None, None) => Ok(None),
    }
}

/// What all lines together say, by sandbox.
#[derive(Clone, Debug, Default)]
pub struct Lines(pub(super) BTreeMap<SandboxId, Result<HandedOut, String>>);

impl Lines {
    /// How many sandboxes they speak of.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether they speak of none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<HandedOut> for Lines {
    fn from_iter<I: IntoIterator<Item = HandedOut>>(lines: I) -> Self {
        let mut sorted: Vec<_> = lines.into_iter().collect();
        // So that which two of three names a conflict tells does not depend on the order either.
        sorted.sort_by_cached_key(|line| format!("{line:?}"));
        let mut by_id: BTreeMap<SandboxId, Result<HandedOut, String>> = BTreeMap::new();
        for line in sorted {
            let id = line.sandbox_id.clone();
            let merged = match by_id.remove(&id) {
                Some(known) => known.and_then(|known| known.and(line)),
                None => Ok(line),
            };
            by_id.insert(id, merged);
        }
        Self(by_id)
    }
}
