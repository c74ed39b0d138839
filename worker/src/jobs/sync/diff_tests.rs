//! Tests of [`diff`](super::diff).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use broker_domain::{ExternalId, Sandbox, SandboxId, SandboxName, Status, Timestamp};
use broker_provider::{Account, ListedRow, Mark, Rows as _, Sighting, Tally};
use broker_store::Record;

use super::diff::{Diff, KnownSandbox, Missing, Ours, Theirs, between};
use super::refusal::{incomplete, is_foreign, refusal};
use super::spool::Portions;
use super::verdict::{DiffVerdict, judge};

fn id(text: &str) -> SandboxId {
    SandboxId::new(text).unwrap()
}

fn account(text: &str, external_id: &str, created_at: Option<u64>) -> Account {
    Account {
        id: id(text),
        name: SandboxName::new(text).unwrap(),
        external_id: ExternalId::new(external_id).unwrap(),
        created_at: created_at.map(Timestamp::from_secs),
        attributes: None,
    }
}

fn known(text: &str, status: Status) -> (SandboxId, KnownSandbox) {
    let known = KnownSandbox {
        status,
        version: 3,
        name: SandboxName::new(text).unwrap(),
        external_id: ExternalId::new(text).unwrap(),
        attributes: None,
    };
    (id(text), known)
}

fn listed(accounts: &[Account]) -> Vec<Sighting> {
    accounts.iter().cloned().map(Sighting::Account).collect()
}

fn dir() -> Arc<Path> {
    std::env::temp_dir().into()
}

fn compared_after(
    before: Option<&Diff>,
    ours: impl IntoIterator<Item = (SandboxId, KnownSandbox)>,
    theirs: Vec<Sighting>,
) -> Diff {
    compared_with(before, ours, theirs, 0)
}

/// The same of a list with so many rows more that have no usable id.
fn compared_with(
    before: Option<&Diff>,
    ours: impl IntoIterator<Item = (SandboxId, KnownSandbox)>,
    theirs: Vec<Sighting>,
    unidentified: u64,
) -> Diff {
    let mut tally = Tally::default();
    tally.unidentified = unidentified;
    let (mut pool, mut list) = (Ours::new(dir()), Theirs::new(dir(), Arc::default()));
    ours.into_iter().for_each(|(id, known)| pool.add(id, known).unwrap());
    for (sighting, page) in theirs.into_iter().zip(1..) {
        let mark = Some(Mark { ids: u64::from(page), page });
        list.take(ListedRow { mark, sighting: Some(sighting) }).unwrap();
    }
    between(&pool, list, tally, before, &dir()).unwrap()
}

fn compared(ours: impl IntoIterator<Item = (SandboxId, KnownSandbox)>, theirs: Vec<Sighting>) -> Diff {
    compared_after(None, ours, theirs)
}

fn missing(diff: Diff) -> Vec<Missing> {
    let mut missing = Portions::new(Arc::new(diff.missing)).next(usize::MAX).unwrap();
    missing.sort();
    missing
}

fn is_missing(text: &str, status: Status) -> Missing {
    Missing { id: id(text), status, version: 3 }
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    let ours: HashMap<_, _> = Status::ALL
        .into_iter()
        .filter(|status| *status != Status::Stale)
        .map(|status| known(status.as_str(), status))
        .collect();
    let theirs: Vec<_> = ours.keys().map(|id| account(id.as_str(), id.as_str(), None)).collect();
    let diff = compared(ours, listed(&theirs));
    assert!(diff.unknown.len() + diff.found.len() + diff.missing.len() == 0, "{diff:?}");
}

#[test]
fn what_is_or_may_be_offered_is_refreshed_and_what_is_used_is_not() {
    let external_id = |status: Status| ExternalId::new(format!("identity/accounts/{status}")).unwrap();
    let ours = Status::ALL.into_iter().map(|status| {
        let (id, known) = known(status.as_str(), status);
        (id, KnownSandbox { external_id: external_id(status), ..known })
    });
    let theirs: Vec<_> = Status::ALL
        .into_iter()
        .map(|status| Account {
            name: SandboxName::new("renamed").unwrap(),
            ..account(status.as_str(), external_id(status).as_str(), None)
        })
        .collect();
    let diff = compared(ours, listed(&theirs));
    let found = Portions::new(Arc::new(diff.found)).next(usize::MAX).unwrap();
    let mut found: Vec<_> = found.into_iter().map(|(_, known)| known.status).collect();
    found.sort();
    let refreshed =
        [Status::Arriving, Status::Available, Status::Reserved, Status::Stale, Status::Quarantined];
    assert_eq!(found, refreshed);
}

#[test]
fn only_what_is_or_will_be_offered_becomes_stale_and_allocated_ones_are_reported() {
    let ours = Status::ALL.into_iter().map(|status| known(status.as_str(), status));
    let diff = compared(
        ours,
        listed(&[account("new", "identity/accounts/0192f0c1-2345-7abc-8def-0123456789ab", None)]),
    );
    let in_pool = [Status::Arriving, Status::Available, Status::Reserved]
        .map(|status| is_missing(status.as_str(), status));
    assert_eq!((diff.allocated_missing, &*diff.some_allocated_missing), (1, &[id("allocated")][..]));
    assert_eq!(diff.unknown.len(), 1);
    let missing = missing(diff);
    assert_eq!((missing.len(), in_pool.iter().all(|sandbox| missing.contains(sandbox))), (3, true));
}

#[test]
fn what_cannot_be_read_is_neither_new_nor_missing() {
    let theirs = vec![Sighting::Unreadable { id: Some(id("a")), external_id: None }];
    let diff = compared([known("a", Status::Available)], theirs);
    assert!(diff.missing.len() + diff.found.len() == 0 && diff.listed == 1);
}

#[test]
fn a_list_says_how_many_of_its_rows_may_be_new_and_cannot_be_read() {
    let external_id = |text: &str| Some(ExternalId::new(text).unwrap());
    let hidden = |row: Sighting, unidentified| {
        let theirs = vec![Sighting::Account(account("a", "a", None)), row];
        compared_with(None, ["a", "b"].map(|text| known(text, Status::Allocated)), theirs, unidentified)
            .hidden
    };
    let unreadable = |text: &str, external_id| Sighting::Unreadable { id: Some(id(text)), external_id };
    // A sandbox of ours, by its id, by its account, or by both.
    for row in [
        Sighting::Account(account("b", "b", None)),
        unreadable("b", None),
        unreadable("b", external_id("b")),
        unreadable("new", external_id("b")),
    ] {
        assert_eq!((hidden(row.clone(), 0), hidden(row.clone(), 2)), (0, 2), "{row:?}");
    }
    for row in [
        unreadable("new", None),
        unreadable("new", external_id("new")),
        unreadable("b", external_id("new")),
        Sighting::Unreadable { id: None, external_id: external_id("new") },
    ] {
        assert_eq!((hidden(row.clone(), 0), hidden(row.clone(), 2)), (1, 3), "{row:?}");
    }
    // What can be read is let in.
    assert_eq!(hidden(Sighting::Account(account("new", "new", None)), 0), 0);
}

#[test]
fn what_one_of_two_looks_named_is_not_missing() {
    let ours: HashMap<_, _> = ["a", "b", "c"].map(|text| known(text, Status::Available)).into();
    let first = compared(ours.clone(), listed(&[account("a", "ext-a", None)]));
    let second = compared_after(Some(&first), ours, listed(&[account("b", "ext-b", None)]));
    assert_eq!(missing(second), [is_missing("c", Status::Available)]);
}

#[test]
fn an_empty_list_or_too_many_missing_are_not_believed() {
    let refused = |of: usize, gone: usize| {
        let ours: HashMap<_, _> = (0..of).map(|n| known(&format!("s{n}"), Status::Available)).collect();
        let theirs: Vec<_> = (gone..of).map(|n| account(&format!("s{n}"), &format!("s{n}"), None)).collect();
        refusal(&compared(ours, listed(&theirs)))
    };
    assert!(refused(0, 0).is_some_and(|why| why.contains("nothing at all")));
    assert!(refused(3, 3).is_some());
    assert!(refused(10, 5).is_none() && refused(10, 6).is_some());
    assert!(refused(100, 20).is_none() && refused(100, 21).is_some());
}

#[test]
fn a_list_that_misses_what_is_in_use_as_well_is_another_providers() {
    let pool = |allocated: usize, quarantined: usize, available: usize| {
        let in_use = (0..allocated).map(|n| known(&format!("a{n}"), Status::Allocated));
        let set_aside = (0..quarantined).map(|n| known(&format!("q{n}"), Status::Quarantined));
        let free = (0..available).map(|n| known(&format!("s{n}"), Status::Available));
        in_use.chain(set_aside).chain(free).collect::<HashMap<_, _>>()
    };
    let list = |names: &[String]| {
        let accounts: Vec<_> = names.iter().map(|name| account(name, name, None)).collect();
        listed(&accounts)
    };
    let foreign: Vec<_> = (0..300).map(|n| format!("foreign{n}")).collect();
    for ours in [pool(300, 0, 4), pool(300, 0, 0), pool(0, 30, 4)] {
        let first = compared(ours.clone(), list(&foreign));
        assert!(is_foreign(&first));
        let second = compared_after(Some(&first), ours, list(&foreign));
        assert!(refusal(&second).is_some_and(|why| why.contains("--accept-stale")));
    }
    // What is gone of what is in use is gone: the rest is listed, and what is new beside it enters.
    let left = |gone: usize, new: usize| {
        (gone..100).map(|n| format!("a{n}")).chain((0..new).map(|n| format!("new{n}"))).collect::<Vec<_>>()
    };
    for (list_of, is_refused) in [
        (left(50, 300), false),
        (left(51, 49), false),
        (left(51, 50), true),
        (left(95, 5), false),
        (left(95, 6), true),
    ] {
        assert_eq!(refusal(&compared(pool(100, 0, 0), list(&list_of))).is_some(), is_refused, "{list_of:?}");
    }
    assert!(refusal(&compared(pool(5, 0, 0), list(&foreign))).is_none(), "few of few are gone at times");
    // What one of two lists has is there.
    let first = compared(pool(100, 0, 0), list(&left(60, 60)));
    let all = list(&left(0, 0));
    assert!(refusal(&compared_after(Some(&first), pool(100, 0, 0), all)).is_none());
}

#[test]
fn another_providers_list_is_refused_whatever_it_says_and_whatever_the_first_one_said() {
    let pool = || (0..30).map(|n| known(&format!("s{n}"), Status::Available)).collect::<HashMap<_, _>>();
    let rows = |id: &str, external_id: &str| {
        let row = |n| account(&format!("{id}{n}"), &format!("{external_id}{n}"), None);
        listed(&(0..30).map(row).collect::<Vec<_>>())
    };
    let (own, foreign) = (|| rows("s", "s"), || rows("f", "identity/accounts/f"));
    // It contradicts itself.
    let doubtful = compared_with(None, pool(), foreign(), 2);
    assert!(doubtful.doubt.is_some() && is_foreign(&doubtful));
    assert!(
        refusal(&doubtful).is_some_and(|why| why.contains("30 of 30") && why.contains("another provider"))
    );
    // The first is right: what only the second misses is not missing, and what only it has is not new.
    let first = compared(pool(), own());
    let second = compared_after(Some(&first), pool(), foreign());
    assert_eq!(second.missing.len(), 0);
    assert!(refusal(&second).is_some_and(|why| why.contains("another provider")));
    // The second is right: nothing of the first is left.
    let second = compared_after(Some(&compared(pool(), foreign())), pool(), own());
    assert_eq!((refusal(&second), second.unknown.len()), (None, 0));
    // It has our ids, for its own accounts.
    let remade = compared(pool(), rows("s", "identity/accounts/f"));
    assert_eq!((remade.missing.len(), remade.unlisted, remade.remade), (0, 30, 30));
    assert!(refusal(&remade).is_some_and(|why| why.contains("another provider")));
    // Labels that are new, or change places, make no other provider; nor do rows of ours that cannot be read.
    assert!(!is_foreign(&compared(pool(), rows("another", "s"))));
    let swapped: Vec<_> = (0..30).map(|n| account(&format!("s{n}"), &format!("s{}", 29 - n), None)).collect();
    assert!(!is_foreign(&compared(pool(), listed(&swapped))));
    let unreadable =
        (0..30).map(|n| Sighting::Unreadable { id: Some(id(&format!("s{n}"))), external_id: None });
    assert!(!is_foreign(&compared(
        pool(),
        unreadable.chain(foreign()).chain(rows("g", "identity/accounts/g")).collect()
    )));
}

#[test]
fn a_tombstone_gives_way_only_to_another_resource_that_was_made_after_it_was_gone() {
    let stands = |status, external_id: &str| Record {
        sandbox: Sandbox {
            id: id("a"),
            name: SandboxName::new("a").unwrap(),
            external_id: ExternalId::new(external_id).unwrap(),
            attributes: broker_domain::ProviderAttributes::default(),
            status,
            version: 5,
            allocation: None,
            term: broker_domain::Term::default(),
            deletion_requested_at: None,
            end_reason: None,
        },
        due: None,
        reserved_for: None,
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
        assert_eq!(judge(&account("a", "new", Some(101)), &stands(status, "old")), DiffVerdict::NotYet);
        assert_eq!(judge(&account("a", "old", Some(101)), &stands(status, "old")), DiffVerdict::Leave);
    }
}

#[test]
fn a_list_that_is_not_believed_for_what_it_misses_ends_no_late_ticket() {
    let ours = |many: usize| (0..many).map(|n| known(&format!("lab-{n:03}"), Status::Available));
    let names = |many: usize| (0..many).map(|n| format!("lab-{n:03}")).collect::<Vec<_>>();
    let list = |many| names(many).iter().map(|name| account(name, name, None)).collect::<Vec<_>>();
    let whole = compared_with(None, ours(100), listed(&list(100)), 1);
    assert!(refusal(&whole).is_none() && incomplete(&whole).is_none());
    // The row that names nobody is a contradiction: it is not refused, and makes nothing stale.
    let cut = compared_with(None, ours(100), listed(&list(40)), 1);
    assert!(refusal(&cut).is_none(), "{cut:?}");
    assert_eq!(incomplete(&cut), Some("it misses 60 of 100 available sandboxes".to_owned()));
    let few = compared(ours(100), listed(&list(97)));
    assert_eq!(incomplete(&few), None);
    let unconfirmed = Diff { is_unconfirmed: true, ..few };
    assert_eq!(incomplete(&unconfirmed), Some("it misses 3 of 100 available sandboxes".to_owned()));
}
