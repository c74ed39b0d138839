//! Ends of leases, by the allocation id or by the owner's key, and extensions; and what a transaction may not do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use broker_domain::{
    Allocation, EndReason, IdempotencyKey, Lease, LeaseEnd, LeaseKey, SandboxId, Status, TrackId,
};
use broker_store::{Candidate, Claim, ClaimOutcome, Write, retry_on_conflict};
use broker_tests::together;

use crate::place::Place;

#[tokio::test]
async fn an_end_ends_both_and_only_once() {
    let place = Place::with_table().await;
    let (sandbox, allocation) = place.held().await;
    let end = LeaseEnd::by_broker(EndReason::Expired, place.clock.now(), place.clock.now());
    for expected in [Write::Applied, Write::Rejected(())] {
        let told = place.store.leases.end(&sandbox.sandbox_id, &allocation, &end).await.expect("asked");
        assert_eq!(told, expected);
    }
    let record = place.store.sandboxes.record(&sandbox.sandbox_id).await.expect("read").expect("there");
    assert_eq!((record.sandbox.status, record.sandbox.version), (Status::PendingDeletion, 3));
    assert_eq!(record.sandbox.end_reason, Some(EndReason::Expired));
    let lease = place.store.leases.get(&allocation.lease_key).await.expect("read").expect("kept");
    assert_eq!(lease.end, Some(end));
}

#[tokio::test]
async fn another_allocation_ends_nothing() {
    let place = Place::with_table().await;
    let (sandbox, allocation) = place.held().await;
    let other = Allocation { id: place.entropy.allocation_id(), ..allocation.clone() };
    let end = LeaseEnd::by_broker(EndReason::Released, place.clock.now(), place.clock.now());
    let told = place.store.leases.end(&sandbox.sandbox_id, &other, &end).await.expect("asked");
    assert_eq!(told, Write::Rejected(()));
    assert!(place.store.leases.get(&allocation.lease_key).await.expect("read").expect("there").end.is_none());
    // Nor does the end of a sandbox that is not there make one.
    let nowhere = SandboxId::new("nowhere").expect("a valid id");
    assert_eq!(
        place.store.leases.end(&nowhere, &allocation, &end).await.expect("asked"),
        Write::Rejected(())
    );
    assert_eq!(place.store.sandboxes.get(&nowhere).await.expect("read"), None);
}

#[tokio::test]
async fn an_owner_gives_back_what_he_holds_by_that_key_and_nothing_else() {
    let place = Place::with_table().await;
    let mut free = place.seed(2).await;
    let (other, free) = (free.remove(0), free.remove(0));
    let (sandbox, allocation) = place.hold(free).await;
    let now = place.clock.now();
    let key = allocation.lease_key.clone();
    let end = LeaseEnd::by_request(EndReason::Returned, now, now, now);
    let give_back = async |sandbox: &SandboxId, key: &LeaseKey, claimed_by| {
        place.store.leases.return_sandbox(sandbox, key, claimed_by, now, &end).await.expect("asked")
    };
    let another = |track: &str, key: &str| LeaseKey {
        track: TrackId::new(track).expect("valid"),
        key: IdempotencyKey::new(key).expect("valid"),
    };
    // Another track's, another key's, one that was claimed later, a sandbox that the key does not hold.
    let nothing = [
        (&sandbox.sandbox_id, another("student-2", "student-1"), now),
        (&sandbox.sandbox_id, another("student-1", "my-key"), now),
        (&sandbox.sandbox_id, key.clone(), allocation.allocated_at.minus(Duration::from_secs(1))),
        (&other.sandbox_id, key.clone(), now),
    ];
    for (of, by, until) in nothing {
        assert_eq!(give_back(of, &by, until).await, Write::Rejected(()), "{of} {by:?}");
    }
    place.claim(&place.ask("student-2"), &other).await;
    assert_eq!(give_back(&other.sandbox_id, &key, now).await, Write::Rejected(()), "it is student-2's");
    let lease = place.store.leases.get(&key).await.expect("read").expect("there");
    assert_eq!((lease.end, lease.grant.sandbox_id), (None, sandbox.sandbox_id.clone()));

    assert_eq!(give_back(&sandbox.sandbox_id, &key, now).await, Write::Applied);
    assert_eq!(give_back(&sandbox.sandbox_id, &key, now).await, Write::Rejected(()), "it is ended");
    let record = place.store.sandboxes.record(&sandbox.sandbox_id).await.expect("read").expect("there");
    assert_eq!(record.sandbox.status, Status::PendingDeletion);
    let lease = place.store.leases.get(&key).await.expect("read").expect("kept");
    assert_eq!(lease.end, Some(end.clone()));
}

#[tokio::test]
async fn a_longer_lease_is_longer_on_both() {
    let place = Place::with_table().await;
    let (sandbox, allocation) = place.held().await;
    let until = allocation.expires_at.plus(Duration::from_secs(7_200));
    let now = place.clock.now();
    let told = place.store.leases.extend(&sandbox.sandbox_id, &allocation, until, now).await.expect("asked");
    assert_eq!(told, Write::Applied);
    let lease = place.store.leases.get(&allocation.lease_key).await.expect("read").expect("there");
    let record = place.store.sandboxes.record(&sandbox.sandbox_id).await.expect("read").expect("there");
    assert_eq!((lease.grant.expires_at, record.due), (until, Some(until)));
    // A write with another allocation extends nothing.
    let other = Allocation { id: place.entropy.allocation_id(), ..allocation.clone() };
    let later = until.plus(Duration::from_secs(3_600));
    let told = place.store.leases.extend(&sandbox.sandbox_id, &other, later, now).await.expect("asked");
    assert_eq!(told, Write::Rejected(()));
    let lease = place.store.leases.get(&allocation.lease_key).await.expect("read").expect("there");
    assert_eq!(lease.grant.expires_at, until);
}

#[tokio::test]
async fn a_lease_that_was_given_longer_does_not_expire_and_a_second_extension_is_decided_anew() {
    let place = Place::with_table().await;
    let (sandbox, allocation) = place.held().await;
    let (id, now, store) = (&sandbox.sandbox_id, place.clock.now(), &place.store);
    let end = LeaseEnd::by_broker(EndReason::Expired, now, now);
    let expires_at = allocation.expires_at;
    let a_second = Duration::from_secs(1);
    let early = store.leases.expire(id, &allocation, expires_at.minus(a_second), &end).await.expect("asked");
    assert_eq!(early, Write::Rejected(()), "it is not over");
    let longer = expires_at.plus(Duration::from_secs(8 * 3_600));
    assert_eq!(store.leases.extend(id, &allocation, longer, now).await.expect("asked"), Write::Applied);
    let unseen = store.leases.expire(id, &allocation, expires_at, &end).await.expect("asked");
    assert_eq!(unseen, Write::Rejected(()), "decided before it was given longer");
    let again = store.leases.extend(id, &allocation, longer, now).await.expect("asked");
    assert_eq!(again, Write::Rejected(()), "added to an end that is no more");
    let other = Allocation { id: place.entropy.allocation_id(), ..allocation.clone() };
    assert_eq!(store.leases.expire(id, &other, longer, &end).await.expect("asked"), Write::Rejected(()));
    for expected in [Write::Applied, Write::Rejected(())] {
        assert_eq!(store.leases.expire(id, &allocation, longer, &end).await.expect("asked"), expected);
    }
}

#[tokio::test]
async fn another_sandbox_takes_the_place_of_one_whose_time_is_over_in_one_write_or_nothing_changes() {
    let place = Place::with_table().await;
    let mut free = place.seed(3).await;
    let (next, lost) = (free.remove(1), free.remove(1));
    let (old, allocation) = place.hold(free.remove(0)).await;
    let (store, over) = (&place.store, allocation.expires_at);
    let lease = store.leases.get(&allocation.lease_key).await.expect("read").expect("there");
    let request = place.ask("student-1");
    let end = LeaseEnd::by_request(EndReason::Expired, over, over, over);
    let claim = |candidate| Claim {
        request: &request,
        candidate,
        allocation_id: place.entropy.allocation_id(),
        now: over,
        listed: Status::Available,
        from_line: false,
        permit: None,
    };
    let status = async |id: &SandboxId| store.sandboxes.get(id).await.expect("read").expect("there").status;

    let early = store.leases.replace(&claim(&next), &lease, over.minus(Duration::from_secs(1)), &end).await;
    assert!(matches!(early, Ok(ClaimOutcome::LeaseStands(_))), "{early:?}");
    let gone = Candidate { version: lost.version + 1, ..lost.clone() };
    let is_now = ClaimOutcome::CandidateChanged(Box::new(lost), None);
    let lost = store.leases.replace(&claim(&gone), &lease, over, &end).await.expect("asked");
    assert_eq!(lost, is_now);
    assert_eq!(status(&old.sandbox_id).await, Status::Allocated, "he keeps it as long as there is no other");
    let other = Lease { allocation_id: place.entropy.allocation_id(), ..lease.clone() };
    let stands = store.leases.replace(&claim(&next), &other, over, &end).await;
    assert!(matches!(stands, Ok(ClaimOutcome::LeaseStands(_))), "{stands:?}");
    assert_eq!(status(&next.sandbox_id).await, Status::Available);

    let claimed = store.leases.replace(&claim(&next), &lease, over, &end).await.expect("asked");
    let ClaimOutcome::Created(grant) = claimed else { panic!("{claimed:?}") };
    assert_eq!(grant.sandbox_id, next.sandbox_id);
    assert_eq!(
        (status(&old.sandbox_id).await, status(&next.sandbox_id).await),
        (Status::PendingDeletion, Status::Allocated)
    );
    let lease = store.leases.get(&allocation.lease_key).await.expect("read").expect("there");
    assert_eq!((lease.end, lease.grant), (None, grant));
}

fn count_up(place: &Place, id: &str) -> TransactWriteItem {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let key = HashMap::from([("PK".to_owned(), text(id)), ("SK".to_owned(), text("META"))]);
    let update = Update::builder()
        .table_name(&place.table)
        .set_key(Some(key))
        .update_expression("ADD times :one")
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
        .build()
        .expect("all fields are set");
    TransactWriteItem::builder().update(update).build()
}

async fn times(place: &Place, id: &str) -> Option<AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let get = place.aws.dynamodb.get_item().table_name(&place.table).consistent_read(true);
    let get = get.key("PK", text(id)).key("SK", text("META")).send().await.expect("GetItem");
    get.item.and_then(|item| item.get("times").cloned())
}

/// A retried call whose first answer was lost is done once: the SDK sends the same token.
#[tokio::test]
async fn a_transaction_that_is_sent_twice_is_done_once() {
    let place = Place::with_table().await;
    let token = place.entropy.uuid().to_string();
    for _ in 0..2 {
        let call = place.aws.dynamodb.transact_write_items().client_request_token(&token);
        call.transact_items(count_up(&place, "A")).send().await.expect("done, or known");
    }
    assert_eq!(times(&place, "A").await, Some(AttributeValue::N("1".to_owned())));
    let other = place.aws.dynamodb.transact_write_items().client_request_token(&token);
    let refused = other.transact_items(count_up(&place, "B")).send().await.expect_err("another content");
    assert_eq!(refused.code(), Some("IdempotentParameterMismatchException"));
}

/// Which is why groups in one call touch different items.
#[tokio::test]
async fn a_transaction_that_names_an_item_twice_is_refused() {
    let place = Place::with_table().await;
    let twice = place.aws.dynamodb.transact_write_items();
    let twice = twice.transact_items(count_up(&place, "A")).transact_items(count_up(&place, "A"));
    let refused = twice.send().await.expect_err("refused");
    assert_eq!(refused.code(), Some("ValidationException"));
    assert_eq!(times(&place, "A").await, None);
}

#[tokio::test]
async fn a_renewal_moves_an_end_on_and_never_back_and_only_of_a_live_lease() {
    let place = Place::with_table().await;
    let (free, allocation) = place.held().await;
    let (store, now) = (&place.store, place.clock.now());
    let hour = Duration::from_secs(3_600);
    let (later, latest) = (allocation.expires_at.plus(hour), allocation.expires_at.plus(hour * 2));
    let renew =
        async |until| store.leases.renew(&free.sandbox_id, &allocation, until, now).await.expect("asked");
    assert_eq!(renew(latest).await, Write::Applied);
    assert_eq!(renew(latest).await, Write::Applied, "a repeat finds its own success");
    assert_eq!(renew(later).await, Write::Rejected(()), "never back");
    let lease = store.leases.get(&allocation.lease_key).await.expect("read").expect("there");
    let record = store.sandboxes.record(&free.sandbox_id).await.expect("read").expect("there");
    assert_eq!((lease.grant.expires_at, record.due), (latest, Some(latest)));

    // An expiry that was decided before the renewal takes nothing.
    let end = LeaseEnd::by_broker(EndReason::Expired, now, now);
    let expired = store.leases.expire(&free.sandbox_id, &allocation, later, &end).await.expect("asked");
    assert_eq!(expired, Write::Rejected(()));
    let other = Allocation { id: place.entropy.allocation_id(), ..allocation.clone() };
    let stranger = store.leases.renew(&free.sandbox_id, &other, latest.plus(hour), now).await.expect("asked");
    assert_eq!(stranger, Write::Rejected(()), "another allocation's");
    let ended = store.leases.expire(&free.sandbox_id, &allocation, latest, &end).await.expect("asked");
    assert_eq!(ended, Write::Applied);
    assert_eq!(renew(latest.plus(hour)).await, Write::Rejected(()), "it has ended");
}

/// All say that they live at the same moment; an expiry that was decided a moment before goes through every tenth of them.
#[tokio::test]
async fn heartbeats_of_many_owners_at_once_are_written_and_each_of_those_that_expire_is_one_of_both() {
    let place = Arc::new(Place::with_table().await);
    let free = place.seed(super::waiting::races()).await;
    let held = free.into_iter().enumerate().map(|(n, free)| {
        let place = Arc::clone(&place);
        async move {
            place.claim(&place.ask(&format!("job-{n}")), &free).await;
            let sandbox = place.store.sandboxes.get(&free.sandbox_id).await.expect("read").expect("there");
            (free.sandbox_id, sandbox.allocation.expect("allocated"))
        }
    });
    let held = together(held.collect::<Vec<_>>()).await;
    // Another process: its transactions meet ours.
    let expiring = place.another_store();
    let beats = held.into_iter().enumerate().map(|(n, (sandbox, allocation))| {
        let (place, expiring) = (Arc::clone(&place), expiring.clone());
        async move {
            let now = place.clock.now();
            let until = allocation.expires_at;
            let renew =
                || place.store.leases.renew(&sandbox, &allocation, until.plus(Duration::from_secs(90)), now);
            let end = LeaseEnd::by_broker(EndReason::Abandoned, now, now);
            let expire = async || match n % 10 {
                0 => expiring.leases.expire(&sandbox, &allocation, until, &end).await,
                _ => Ok(Write::Rejected(())),
            };
            let (beaten, expired) = tokio::join!(
                retry_on_conflict(&place.entropy, renew),
                retry_on_conflict(&place.entropy, expire)
            );
            (beaten.expect("asked"), expired.expect("asked"))
        }
    });
    for (n, (beaten, expired)) in together(beats.collect::<Vec<_>>()).await.into_iter().enumerate() {
        assert_ne!(beaten, expired, "{n}");
    }
}
