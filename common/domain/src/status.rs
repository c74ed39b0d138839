//! The states of a sandbox and their transitions.
//!
//! Invariant: a sandbox that was ever handed out is never `available` again; [`Status::next`] has no such transition. The
//! store's conditions bear the names of these transitions.

use serde::{Deserialize, Serialize};

/// The state of a sandbox: ARCHITECTURE.md, "Sandbox states".
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::Display,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In the pool, can be claimed.
    Available,
    /// Held by one owner: a live lease points to it.
    Allocated,
    /// Handed out before, waiting for its deletion at the provider.
    PendingDeletion,
    /// Was in the pool; the provider does not list it any more.
    Stale,
    /// Deletion at the provider failed too often.
    DeletionFailed,
    /// A tombstone: it was handed out, and is deleted at the provider.
    Deleted,
    /// A state of a newer program: this one changes nothing about it.
    #[serde(other)]
    Unknown,
}

/// An event in the life of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A claim won.
    Claim,
    /// Its lease ended: returned, expired or released.
    End,
    /// Sync does not find it at the provider.
    Missing,
    /// Sync finds it at the provider again.
    Found,
    /// The provider deleted it, or does not know it.
    ProviderDeleted,
    /// Its last attempt at deletion failed.
    GiveUp,
    /// Deletion is tried again: a day later, or by the operator.
    Retry,
}

/// An event that is not possible in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible while {status}")]
pub struct InvalidTransition {
    /// The state.
    pub status: Status,
    /// The event.
    pub event: Event,
}

impl Status {
    /// Every state that this program gives, in the order in which people read them.
    pub const ALL: [Self; 6] = [
        Self::Available,
        Self::Allocated,
        Self::PendingDeletion,
        Self::Stale,
        Self::DeletionFailed,
        Self::Deleted,
    ];

    /// The state after `event`, or an error if the event is not possible now.
    pub fn next(self, event: Event) -> Result<Self, InvalidTransition> {
        use Event::{Claim, End, Found, GiveUp, Missing, ProviderDeleted, Retry};
        use Status::{Allocated, Available, Deleted, DeletionFailed, PendingDeletion, Stale};
        match (self, event) {
            (Available, Claim) => Ok(Allocated),
            (Available, Missing) => Ok(Stale),
            (Available | Stale, Found) => Ok(Available),
            (Stale, Missing) => Ok(Stale),
            (Allocated, End) => Ok(PendingDeletion),
            // Sync only reports an allocated sandbox that vanished: its owner keeps it.
            (Allocated, Found | Missing) => Ok(Allocated),
            (PendingDeletion, Found | Missing) => Ok(PendingDeletion),
            (PendingDeletion, ProviderDeleted) => Ok(Deleted),
            (PendingDeletion, GiveUp) => Ok(DeletionFailed),
            (DeletionFailed, Retry) => Ok(PendingDeletion),
            (DeletionFailed, ProviderDeleted) => Ok(Deleted),
            (DeletionFailed, Found | Missing) => Ok(DeletionFailed),
            // The provider still lists it after its deletion: delete it again, never offer it.
            (Deleted, Found) => Ok(PendingDeletion),
            (Deleted, Missing | ProviderDeleted) => Ok(Deleted),
            (Available, End | ProviderDeleted | GiveUp | Retry)
            | (Stale, Claim | End | ProviderDeleted | GiveUp | Retry)
            | (Allocated, Claim | ProviderDeleted | GiveUp | Retry)
            | (PendingDeletion, Claim | End | Retry)
            | (DeletionFailed, Claim | End | GiveUp)
            | (Deleted, Claim | End | GiveUp | Retry)
            | (Status::Unknown, _) => Err(InvalidTransition { status: self, event }),
        }
    }

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From a given word.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|status| *status != Self::Unknown)
    }

    /// From the stored word.
    pub fn from_stored(text: &str) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}
