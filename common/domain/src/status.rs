//! The states of a sandbox and their transitions.
//!
//! Invariant: a sandbox that was ever handed out is never `available` again: [`Status::next`] has no such transition but
//! [`Event::Release`], whose condition is that it was never used. The store's conditions bear the names of these transitions.

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
    /// Known, and not offered yet: every way into the pool leads here.
    Arriving,
    /// In the pool, can be claimed.
    Available,
    /// Put aside for a reservation: only its tenant can claim it.
    Reserved,
    /// Held by one owner: a live lease points to it.
    Allocated,
    /// Handed out before, waiting for its deletion at the provider.
    PendingDeletion,
    /// Was in the pool; the provider does not list it any more.
    Stale,
    /// Never offered until a person lets it go, or has it deleted: there is a reason to think that it is broken.
    Quarantined,
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
    /// Nothing speaks against offering it.
    Admit,
    /// A reservation puts it aside.
    Reserve,
    /// Its reservation gives it back.
    GiveBack,
    /// A claim won.
    Claim,
    /// Its lease ended: returned, expired or released.
    End,
    /// Sync does not find it at the provider.
    Missing,
    /// Sync finds it at the provider again.
    Found,
    /// Sync finds it at the provider as another account, or under another name.
    Remade,
    /// The provider deleted it, or does not know it.
    ProviderDeleted,
    /// Its last attempt at deletion failed.
    GiveUp,
    /// Deletion is tried again: a day later, or by the operator.
    Retry,
    /// There is a reason not to offer it, or not to delete it yet.
    Quarantine,
    /// An operator lets one go that was never handed out or to be deleted.
    Release,
    /// An operator has one deleted that is in quarantine.
    Retire,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 14] = [
        Self::Admit,
        Self::Reserve,
        Self::GiveBack,
        Self::Claim,
        Self::End,
        Self::Missing,
        Self::Found,
        Self::Remade,
        Self::ProviderDeleted,
        Self::GiveUp,
        Self::Retry,
        Self::Quarantine,
        Self::Release,
        Self::Retire,
    ];
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
    pub const ALL: [Self; 9] = [
        Self::Arriving,
        Self::Available,
        Self::Reserved,
        Self::Allocated,
        Self::PendingDeletion,
        Self::Stale,
        Self::Quarantined,
        Self::DeletionFailed,
        Self::Deleted,
    ];

    /// The state after `event`, or an error if the event is not possible now.
    pub fn next(self, event: Event) -> Result<Self, InvalidTransition> {
        use Event::{
            Admit, Claim, End, Found, GiveBack, GiveUp, Missing, ProviderDeleted, Quarantine, Release,
            Remade, Reserve, Retire, Retry,
        };
        use Status::{
            Allocated, Arriving, Available, Deleted, DeletionFailed, PendingDeletion, Quarantined, Reserved,
            Stale,
        };
        match (self, event) {
            (Arriving, Admit) | (Available, Found) => Ok(Available),
            (Arriving | Stale, Found) | (Quarantined, Release) | (Reserved, GiveBack) => Ok(Arriving),
            // What was found out about it, or agreed, was about another.
            (Arriving | Available | Reserved | Stale, Remade) => Ok(Arriving),
            (Arriving | Available, Reserve) => Ok(Reserved),
            (Reserved, Found) => Ok(Reserved),
            (Available | Reserved, Claim) => Ok(Allocated),
            (Arriving | Available | Reserved | Stale, Missing) => Ok(Stale),
            (Arriving | Available | Reserved | Allocated | PendingDeletion, Quarantine) => Ok(Quarantined),
            // Whatever the provider lists meanwhile: a person decides.
            (Quarantined, Found | Remade | Missing | Quarantine) => Ok(Quarantined),
            (Allocated, End) | (Quarantined, Retire) => Ok(PendingDeletion),
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
            (Arriving, GiveBack | Claim | End | ProviderDeleted | GiveUp | Retry | Release | Retire)
            | (Available, Admit | GiveBack | End | ProviderDeleted | GiveUp | Retry | Release | Retire)
            | (Reserved, Admit | Reserve | End | ProviderDeleted | GiveUp | Retry | Release | Retire)
            | (
                Stale,
                Admit | Reserve | GiveBack | Claim | End | ProviderDeleted | GiveUp | Retry | Quarantine
                | Release | Retire,
            )
            | (Quarantined, Admit | Reserve | GiveBack | Claim | End | ProviderDeleted | GiveUp | Retry)
            | (
                Allocated,
                Remade | Admit | Reserve | GiveBack | Claim | ProviderDeleted | GiveUp | Retry | Release
                | Retire,
            )
            | (
                PendingDeletion,
                Remade | Admit | Reserve | GiveBack | Claim | End | Retry | Release | Retire,
            )
            | (
                DeletionFailed,
                Remade | Admit | Reserve | GiveBack | Claim | End | GiveUp | Quarantine | Release | Retire,
            )
            | (
                Deleted,
                Remade | Admit | Reserve | GiveBack | Claim | End | GiveUp | Retry | Quarantine | Release
                | Retire,
            )
            | (Status::Unknown, _) => Err(InvalidTransition { status: self, event }),
        }
    }

    /// Whether no owner ever had what is in this state. What is in quarantine may have been used.
    pub const fn is_unused(self) -> bool {
        match self {
            Self::Arriving | Self::Available | Self::Reserved | Self::Stale => true,
            Self::Allocated
            | Self::PendingDeletion
            | Self::Quarantined
            | Self::DeletionFailed
            | Self::Deleted
            | Self::Unknown => false,
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
