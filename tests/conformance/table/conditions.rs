//! Conditional writes of one item: at the version that was read or not at all, and never creating one.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::policy::Policy;
use broker_domain::{Job, SandboxId, Status, Timestamp};
use broker_store::{Candidate, EntryConflict, Seen, StoreError, Trouble, Unused, Write};

use super::terms::alter;
use crate::place::{Place, candidate, sandbox};

/// Each write of a pending deletion, at this version.
async fn each_write(place: &Place, seen: Seen<'_>, now: Timestamp) -> [Result<Write, StoreError>; 6] {
    let store = &place.store;
    [
        store.deletions.postpone(seen, now, now).await,
        store.deletions.attempt_failed(seen, 1, "no", now, now).await,
        store.deletions.give_up(seen, 5, "no", now, now).await,
        store.deletions.retry(seen, now).await,
        store.deletions.write_tombstone(seen, Status::PendingDeletion, &sandbox(0).external_id, now).await,
        store.sandboxes.missing(Status::Available, seen, now).await,
    ]
}

#[tokio::test]
async fn no_write_makes_an_item() {
    let place = Place::with_table().await;
    let id = SandboxId::new("nowhere").expect("a valid id");
    let seen = Seen { id: &id, version: 1 };
    for told in each_write(&place, seen, place.clock.now()).await {
        assert_eq!(told.expect("asked"), Write::Rejected(()));
    }
    let nowhere = candidate(&sandbox(7));
    let (name, external_id) = (&nowhere.name, &nowhere.external_id);
    let from = Unused { status: Status::Stale, version: 1, name, external_id };
    let found = place.store.sandboxes.found(from, &sandbox(7), place.clock.now()).await;
    assert_eq!(found.expect("asked"), Write::Rejected(EntryConflict::MovedOn(())));
    assert_eq!(place.store.sandboxes.remove_stale(&nowhere).await.expect("asked"), Write::Rejected(()));
    let counted = place.store.sandboxes.count(&Policy::default()).await.expect("counted");
    assert_eq!(counted.by_status().values().sum::<u64>(), 0);
}

#[tokio::test]
async fn a_write_at_another_version_changes_nothing() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let before = place.store.sandboxes.record(&free.sandbox_id).await.expect("read");
    let seen = Seen { id: &free.sandbox_id, version: 9 };
    for told in each_write(&place, seen, place.clock.now()).await {
        assert_eq!(told.expect("asked"), Write::Rejected(()));
    }
    let older = Candidate { version: 9, ..free.clone() };
    assert_eq!(place.store.sandboxes.remove_unused_seed(&older).await.expect("asked"), Write::Rejected(()));
    assert_eq!(place.store.sandboxes.record(&free.sandbox_id).await.expect("read"), before);
}

#[tokio::test]
async fn an_insert_finds_what_stands_there() {
    let place = Place::with_table().await;
    let now = place.clock.now();
    let version = now.as_ms();
    assert_eq!(place.store.sandboxes.insert(&sandbox(0), now).await.expect("asked"), Write::Applied);
    let Write::Rejected(EntryConflict::MovedOn(stands)) =
        place.store.sandboxes.insert(&sandbox(0), now).await.expect("asked")
    else {
        panic!("inserted twice");
    };
    let record = place.store.sandboxes.record(&sandbox(0).id).await.expect("read").expect("there");
    assert_eq!(record.sandbox.version, version);
    assert_eq!(*stands, record, "all of it came with the failure");
}

#[tokio::test]
async fn a_seed_leaves_alone_what_is_there() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    place.claim(&place.ask("student-1"), &free).await;
    let stands = place.store.sandboxes.record(&free.sandbox_id).await.expect("read");
    let again = place.store.sandboxes.seed(&sandbox(0), place.clock.now()).await.expect("seeded");
    assert_eq!(again, Write::Rejected(EntryConflict::MovedOn(())));
    assert_eq!(place.store.sandboxes.record(&free.sandbox_id).await.expect("read"), stands);
}

#[tokio::test]
async fn a_seed_takes_away_only_what_nobody_used() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    place.claim(&place.ask("student-1"), &free[0]).await;
    let (used, unused) = (Candidate { version: 2, ..free[0].clone() }, &free[1]);
    for (candidate, expected) in
        [(&used, Write::Rejected(())), (unused, Write::Applied), (unused, Write::Rejected(()))]
    {
        let told = place.store.sandboxes.remove_unused_seed(candidate).await.expect("asked");
        assert_eq!(told, expected, "{candidate:?}");
    }
    assert_eq!(place.store.sandboxes.record(&free[1].sandbox_id).await.expect("read"), None);
    assert!(place.store.sandboxes.record(&free[0].sandbox_id).await.expect("read").is_some());
    // Nor what no seed put in.
    place.store.sandboxes.insert(&sandbox(7), Timestamp::from_ms(1)).await.expect("inserted");
    let told = place.store.sandboxes.remove_unused_seed(&candidate(&sandbox(7))).await.expect("asked");
    assert_eq!(told, Write::Rejected(()));
}

#[tokio::test]
async fn a_deletion_goes_its_way_from_failure_to_tombstone_and_back() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let (id, store, now) = (&free.sandbox_id, &place.store, place.clock.now());
    place.claim(&place.ask("student-1"), &free).await;
    let allocation = store.sandboxes.get(id).await.expect("read").and_then(|sandbox| sandbox.allocation);
    let reason = broker_domain::EndReason::Returned;
    let end = broker_domain::LeaseEnd::by_request(reason, now, now, now);
    store.leases.end(id, &allocation.expect("allocated"), &end).await.expect("ended");

    let at = |version| Seen { id, version };
    assert_eq!(
        store.deletions.attempt_failed(at(3), 1, "away", now, now).await.expect("asked"),
        Write::Applied
    );
    assert_eq!(
        store.deletions.give_up(at(4), 5, "gone for good", now, now).await.expect("asked"),
        Write::Applied
    );
    let given_up = store.sandboxes.record(id).await.expect("read").expect("there");
    assert_eq!((given_up.sandbox.status, given_up.attempts), (Status::DeletionFailed, 5));
    assert_eq!(given_up.deletion_error.as_deref(), Some("gone for good"));
    assert_eq!(store.deletions.retry(at(5), now).await.expect("asked"), Write::Applied);
    let external_id = &free.external_id;
    let buried = store
        .deletions
        .write_tombstone(at(6), Status::PendingDeletion, external_id, now)
        .await
        .expect("asked");
    assert_eq!(buried, Write::Applied);

    let tombstone = store.sandboxes.record(id).await.expect("read").expect("a tombstone");
    assert_eq!((tombstone.sandbox.status, tombstone.sandbox.version), (Status::Deleted, 7));
    assert!(tombstone.deleted_at.is_some() && tombstone.due.is_none());
    // The same resource, or one that is older than the grave, does not come back; another one does.
    let (same, another) = (
        sandbox(0),
        broker_store::NewSandbox {
            external_id: broker_domain::ExternalId::new("identity/accounts/new").expect("a valid id"),
            ..sandbox(0)
        },
    );
    let later = now.plus(std::time::Duration::from_secs(60));
    for (listed, created_at, expected) in [
        (&same, later, Write::Rejected(EntryConflict::MovedOn(()))),
        (&another, now, Write::Rejected(EntryConflict::MovedOn(()))),
        (&another, later, Write::Applied),
    ] {
        let told = store.sandboxes.insert_over_tombstone(listed, &tombstone, created_at, later).await;
        assert_eq!(told.expect("asked"), expected, "{listed:?} of {created_at}");
    }
    let fresh = store.sandboxes.record(id).await.expect("read").expect("there");
    assert_eq!((fresh.sandbox.status, fresh.sandbox.version), (Status::Arriving, later.as_ms()));
    assert_eq!(fresh.sandbox.allocation, None);
}

#[tokio::test]
async fn the_trouble_that_is_told_is_that_of_the_run_that_began_last() {
    let place = Place::with_table().await;
    let (schedule, now) = (&place.store.schedule, place.clock.now());
    let note = async |job, began, why: Option<&str>| {
        let trouble = why.map(|why| Trouble { at: now, why: why.to_owned() });
        schedule.note_trouble(job, trouble.as_ref(), (began, now)).await.expect("asked")
    };
    let told = async |job| {
        let tick = schedule.tick(job, Duration::ZERO, now).await.expect("read");
        tick.trouble.map(|trouble| trouble.why)
    };
    let (sync, second, wrong) = (Job::Sync, Duration::from_secs(1), now.plus(Duration::from_secs(60)));
    let (early, later) = (now.minus(second), now.plus(second));
    assert_eq!(note(sync, early, None).await, Write::Rejected(()), "no update makes an item");
    assert_eq!(note(sync, now, Some("refused")).await, Write::Applied);
    assert_eq!(note(sync, now, Some("refused")).await, Write::Applied, "its answer was lost");
    for (why, does) in [(None, "removes"), (Some("away"), "overwrites")] {
        assert_eq!(note(sync, early, why).await, Write::Rejected(()), "an earlier run {does} nothing");
        assert_eq!(told(sync).await.as_deref(), Some("refused"));
    }
    assert_eq!(note(sync, later, None).await, Write::Applied);
    assert_eq!(told(sync).await, None);
    assert_eq!(note(sync, later, None).await, Write::Rejected(()), "what goes well goes on without a write");
    assert_eq!(note(sync, now, Some("away")).await, Write::Rejected(()), "a later run removed it");
    // A clock that was wrong keeps nothing from being told.
    for why in [None, Some("away")] {
        assert_eq!(note(sync, wrong, Some("wrong")).await, Write::Applied);
        assert_eq!(note(sync, now, why).await, Write::Applied);
        assert_eq!(told(sync).await.as_deref(), why);
    }
    // An older program told trouble without its run.
    assert_eq!(told(Job::Census).await, None);
    for (name, value) in
        [("trouble_ms", AttributeValue::N("7".to_owned())), ("trouble", AttributeValue::S("x".to_owned()))]
    {
        alter(&place, "TICK#census", name, value).await;
    }
    assert_eq!(note(Job::Census, early, None).await, Write::Applied);
}
