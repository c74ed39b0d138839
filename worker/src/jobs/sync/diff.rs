//! Difference between the table and the provider's list, and the decisions of sync. Pure.

use std::collections::HashMap;

use broker_domain::{AccountKey, Event, ExternalId, SandboxId, SandboxName, Status, Timestamp};
use broker_provider::{Account, AccountId, Listed};
use broker_store::Record;

use super::doubtful::{Doubt, DoubtfulRow};

/// This many available sandboxes may always become stale at once …
const FEW: usize = 5;
/// … and this part of them.
const PART: usize = 5;

/// A sandbox as the index lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownSandbox {
    pub(super) status: Status,
    pub(super) version: u64,
    pub(super) name: SandboxName,
    pub(super) external_id: ExternalId,
}

/// The difference.
#[derive(Debug, Default)]
pub(super) struct Diff {
    /// Sandboxes that the provider lists, and rows without a usable id.
    pub(super) listed: u64,
    /// Rows that are refused.
    pub(super) doubtful: Vec<DoubtfulRow>,
    /// The list has no row that could be a sandbox.
    pub(super) is_empty: bool,
    /// Rows with a malformed field.
    pub(super) unreadable: u64,
    /// Some of them, for the log.
    pub(super) problems: Vec<String>,
    /// Why a sandbox that is not listed may exist all the same.
    pub(super) doubt: Option<String>,
    /// The number of those that are offered, or are to be, before any change.
    pub(super) available: usize,
    /// Listed, and not in the index.
    pub(super) unknown: Vec<Account>,
    /// Arriving, available or stale, and listed with other names or ids.
    pub(super) found: Vec<(Account, KnownSandbox)>,
    /// Arriving or available, and not listed, at this version.
    pub(super) missing: HashMap<SandboxId, (Status, u64)>,
    /// Allocated, and not listed.
    pub(super) allocated_missing: Vec<SandboxId>,
}

impl Diff {
    /// Missing is only what an earlier difference misses, too.
    pub(super) fn missing_in_both(mut self, before: &Self) -> Self {
        self.missing.retain(|id, _| before.missing.contains_key(id));
        self
    }
}

/// The difference between the table and the provider's list.
///
/// A row is the sandbox whose account it names, whatever its label: under another label it is refused, and its sandbox is
/// not missing. Of several rows of one account without a sandbox, the first by label counts.
pub(super) fn between(ours: &HashMap<SandboxId, KnownSandbox>, theirs: Listed) -> Diff {
    let mut diff = Diff {
        listed: theirs.found(),
        is_empty: theirs.is_empty(),
        unreadable: theirs.unreadable_rows,
        doubt: theirs.doubt(),
        available: ours.values().filter(|known| is_in_pool(known.status)).count(),
        ..Diff::default()
    };
    for (id, known) in ours {
        if theirs.names(id, &known.external_id) {
            continue;
        }
        match known.status {
            Status::Arriving | Status::Available => {
                diff.missing.insert(id.clone(), (known.status, known.version));
            }
            Status::Allocated => diff.allocated_missing.push(id.clone()),
            Status::Stale
            | Status::PendingDeletion
            | Status::Quarantined
            | Status::DeletionFailed
            | Status::Deleted
            | Status::Unknown => {}
        }
    }
    let mut accounts: Vec<_> = theirs.accounts.into_values().collect();
    accounts.sort_by(|a, b| a.id.cmp(&b.id));
    let mut holders = holders(ours);
    for account in accounts {
        let known = ours.get(&account.id);
        let holder =
            holders.entry(AccountKey::of(&account.external_id)).or_insert_with(|| account.id.clone());
        let doubt = if *holder != account.id {
            Some(Doubt::AccountOf(holder.clone()))
        } else {
            doubt(&account, known)
        };
        if let Some(doubt) = doubt {
            diff.doubtful.push(DoubtfulRow { id: account.id, external_id: account.external_id, doubt });
            continue;
        }
        match known {
            None => diff.unknown.push(account),
            Some(known) => match known.status {
                Status::Arriving | Status::Available
                    if known.name == account.name && known.external_id == account.external_id => {}
                Status::Arriving | Status::Available | Status::Stale => {
                    diff.found.push((account, known.clone()));
                }
                // An allocated sandbox stays with its owner; a pending deletion is deleted as it was read; a person decides
                // about one in quarantine.
                Status::Allocated
                | Status::Quarantined
                | Status::PendingDeletion
                | Status::DeletionFailed
                | Status::Deleted
                | Status::Unknown => {}
            },
        }
    }
    diff.problems = theirs.problems;
    diff
}

/// Whether it is offered, or is to be.
const fn is_in_pool(status: Status) -> bool {
    matches!(status, Status::Arriving | Status::Available)
}

/// Which of our sandboxes has an account; of several (an older version let them in) the one that is in use.
fn holders(ours: &HashMap<SandboxId, KnownSandbox>) -> HashMap<AccountKey, SandboxId> {
    let unused = |known: &KnownSandbox| known.status.is_unused();
    let mut sorted: Vec<_> = ours.iter().collect();
    sorted.sort_by_key(|(id, known)| (unused(known), *id));
    let mut holders = HashMap::new();
    for (id, known) in sorted {
        holders.entry(AccountKey::of(&known.external_id)).or_insert_with(|| id.clone());
    }
    holders
}

/// Why a row whose account is no other sandbox's is refused all the same.
fn doubt(account: &Account, known: Option<&KnownSandbox>) -> Option<Doubt> {
    let stays =
        known.is_some_and(|known| known.status != Status::Stale && known.external_id == account.external_id);
    if !stays && AccountId::of(&account.external_id).is_none() {
        return Some(Doubt::NoAccount);
    }
    let is_held = known.is_some_and(|known| {
        known.status == Status::Allocated
            && AccountKey::of(&known.external_id) != AccountKey::of(&account.external_id)
    });
    is_held.then_some(Doubt::AnotherAccount)
}

/// The reason to refuse this list, if there is one.
pub(super) fn refusal(diff: &Diff) -> Option<String> {
    if diff.is_empty {
        return Some("the provider lists nothing at all".to_owned());
    }
    let most = FEW.max(diff.available / PART);
    (diff.missing.len() > most).then(|| {
        format!(
            "{} of {} available sandboxes are missing at the provider, more than {most}: look there, then run it with \
             --accept-stale if that is true",
            diff.missing.len(),
            diff.available
        )
    })
}

/// What to do with a listed account whose id exists in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiffVerdict {
    /// The item is in use: nothing.
    Leave,
    /// A tombstone of another resource, which was deleted before the provider created this one.
    Another(Timestamp),
    /// A tombstone of a resource that the provider still lists, or may have listed while ours was in use.
    DeleteAgain,
}

/// What to do with `account`, whose id has the record `stands`.
pub(super) fn judge(account: &Account, stands: &Record) -> DiffVerdict {
    let dead = stands.sandbox.status == Status::Deleted && stands.sandbox.status.next(Event::Found).is_ok();
    if !dead {
        return DiffVerdict::Leave;
    }
    let is_another = AccountKey::of(&account.external_id) != AccountKey::of(&stands.sandbox.external_id);
    match (account.created_at, stands.deleted_at) {
        (Some(created_at), Some(deleted_at)) if is_another && created_at.as_secs() > deleted_at.as_secs() => {
            DiffVerdict::Another(created_at)
        }
        _ => DiffVerdict::DeleteAgain,
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::Sandbox;

    use super::*;

    fn id(text: &str) -> SandboxId {
        SandboxId::new(text).unwrap()
    }

    fn account(text: &str, external_id: &str, created_at: Option<u64>) -> Account {
        Account {
            id: id(text),
            name: SandboxName::new(text).unwrap(),
            external_id: ExternalId::new(external_id).unwrap(),
            created_at: created_at.map(Timestamp::from_secs),
        }
    }

    fn known(text: &str, status: Status) -> (SandboxId, KnownSandbox) {
        let known = KnownSandbox {
            status,
            version: 3,
            name: SandboxName::new(text).unwrap(),
            external_id: ExternalId::new("ext").unwrap(),
        };
        (id(text), known)
    }

    fn listed(accounts: &[Account]) -> Listed {
        let mut listed = Listed::default();
        listed.accounts.extend(accounts.iter().map(|account| (account.id.clone(), account.clone())));
        listed
    }

    fn compared(ours: impl IntoIterator<Item = (SandboxId, KnownSandbox)>, theirs: Listed) -> Diff {
        between(&ours.into_iter().collect(), theirs)
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() {
        let ours: HashMap<_, _> = Status::ALL
            .into_iter()
            .filter(|status| *status != Status::Stale)
            .map(|status| known(status.as_str(), status))
            .collect();
        let theirs: Vec<_> = ours.keys().map(|id| account(id.as_str(), "ext", None)).collect();
        let diff = compared(ours, listed(&theirs));
        assert!(diff.unknown.is_empty() && diff.found.is_empty() && diff.missing.is_empty(), "{diff:?}");
    }

    #[test]
    fn only_what_is_or_will_be_offered_becomes_stale_and_allocated_ones_are_reported() {
        let ours = Status::ALL.into_iter().map(|status| known(status.as_str(), status));
        let diff = compared(
            ours,
            listed(&[account("new", "identity/accounts/0192f0c1-2345-7abc-8def-0123456789ab", None)]),
        );
        let missing = [Status::Arriving, Status::Available].map(|status| (id(status.as_str()), (status, 3)));
        assert_eq!(diff.missing, missing.into());
        assert_eq!(diff.allocated_missing, [id("allocated")]);
        assert_eq!(diff.unknown.len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_neither_new_nor_missing() {
        let mut theirs = Listed::default();
        theirs.unreadable.insert(id("a"));
        let diff = compared([known("a", Status::Available)], theirs);
        assert!(diff.missing.is_empty() && diff.found.is_empty() && diff.listed == 1);
    }

    #[test]
    fn what_one_of_two_looks_named_is_not_missing() {
        let ours: HashMap<_, _> = ["a", "b", "c"].map(|text| known(text, Status::Available)).into();
        let first = between(&ours, listed(&[account("a", "ext-a", None)]));
        let second = between(&ours, listed(&[account("b", "ext-b", None)])).missing_in_both(&first);
        assert_eq!(second.missing, [(id("c"), (Status::Available, 3))].into());
    }

    #[test]
    fn an_empty_list_or_too_many_missing_are_not_believed() {
        let missing = |of: usize, gone: usize| {
            let ours: HashMap<_, _> = (0..of).map(|n| known(&format!("s{n}"), Status::Available)).collect();
            let theirs: Vec<_> = (gone..of).map(|n| account(&format!("s{n}"), "ext", None)).collect();
            refusal(&compared(ours, listed(&theirs)))
        };
        assert!(missing(0, 0).is_some_and(|why| why.contains("nothing at all")));
        assert!(missing(3, 3).is_some());
        assert!(missing(10, 5).is_none() && missing(10, 6).is_some());
        assert!(missing(100, 20).is_none() && missing(100, 21).is_some());
    }

    #[test]
    fn a_tombstone_gives_way_only_to_another_resource_that_was_made_after_it_was_gone() {
        let stands = |status, external_id: &str| Record {
            sandbox: Sandbox {
                id: id("a"),
                name: SandboxName::new("a").unwrap(),
                external_id: ExternalId::new(external_id).unwrap(),
                status,
                version: 5,
                allocation: None,
                term: broker_domain::Term::default(),
                deletion_requested_at: None,
                end_reason: None,
            },
            due: None,
            attempts: 0,
            deletion_error: None,
            deleted_at: Some(Timestamp::from_secs(100)),
            created_at: Timestamp::from_secs(1),
            updated_at: Timestamp::from_secs(100),
            last_synced: None,
            quarantine: None,
            gate: None,
        };
        let tombstone = stands(Status::Deleted, "old");
        let after = Timestamp::from_secs(101);
        assert_eq!(judge(&account("a", "new", Some(101)), &tombstone), DiffVerdict::Another(after));
        assert_eq!(judge(&account("a", "new", Some(100)), &tombstone), DiffVerdict::DeleteAgain);
        assert_eq!(judge(&account("a", "new", None), &tombstone), DiffVerdict::DeleteAgain);
        assert_eq!(judge(&account("a", "old", Some(101)), &tombstone), DiffVerdict::DeleteAgain);
        for status in Status::ALL.into_iter().filter(|status| *status != Status::Deleted) {
            assert_eq!(judge(&account("a", "new", Some(101)), &stands(status, "old")), DiffVerdict::Leave);
        }
    }
}
