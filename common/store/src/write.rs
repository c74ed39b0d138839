//! Outcomes of conditional writes.

use broker_domain::SandboxId;

/// The outcome of a conditional write. A rejected write changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<Current = ()> {
    /// The condition held and the write took effect.
    Applied,
    /// The item is not as the condition wants it: another write was faster.
    Rejected(Current),
}

impl<Current> Write<Current> {
    /// Whether it took effect.
    pub const fn is_applied(&self) -> bool {
        matches!(self, Self::Applied)
    }
}

/// Why a sandbox did not enter the pool, or did not get another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryConflict<Current = ()> {
    /// The sandbox is not as it was read, or its id is taken.
    MovedOn(Current),
    /// Another sandbox has the account, or had it for good.
    AccountTaken {
        /// That sandbox.
        by: SandboxId,
    },
}

impl<Current> Write<EntryConflict<Current>> {
    /// The same without the current item.
    pub(crate) fn without_current(self) -> Write<EntryConflict> {
        match self {
            Self::Applied => Write::Applied,
            Self::Rejected(EntryConflict::MovedOn(_)) => Write::Rejected(EntryConflict::MovedOn(())),
            Self::Rejected(EntryConflict::AccountTaken { by }) => {
                Write::Rejected(EntryConflict::AccountTaken { by })
            }
        }
    }
}
