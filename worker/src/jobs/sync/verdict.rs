//! Verdicts on listed accounts whose id is in the table, though not in the index.

use broker_domain::{AccountKey, Event, Status, Timestamp};
use broker_provider::Account;
use broker_store::Record;

/// What to do with a listed account whose id exists in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiffVerdict {
    /// The item is this account's, and not a tombstone: nothing.
    Leave,
    /// The item is another account's, and no tombstone yet: this one enters later.
    NotYet,
    /// A tombstone of another resource, which was deleted before the provider created this one.
    Another(Timestamp),
    /// A tombstone of a resource that the provider still lists, or may have listed while ours was in use.
    DeleteAgain,
}

/// What to do with `account`, whose id has the record `stands`.
pub(super) fn judge(account: &Account, stands: &Record) -> DiffVerdict {
    let dead = stands.sandbox.status == Status::Deleted && stands.sandbox.status.next(Event::Found).is_ok();
    let is_another = !is_its_account(account, stands);
    if !dead {
        return if is_another { DiffVerdict::NotYet } else { DiffVerdict::Leave };
    }
    match (account.created_at, stands.deleted_at) {
        (Some(created_at), Some(deleted_at)) if is_another && created_at.as_secs() > deleted_at.as_secs() => {
            DiffVerdict::Another(created_at)
        }
        _ => DiffVerdict::DeleteAgain,
    }
}

/// Whether `account` is that of the record.
pub(super) fn is_its_account(account: &Account, stands: &Record) -> bool {
    AccountKey::of(&account.external_id) == AccountKey::of(&stands.sandbox.external_id)
}
