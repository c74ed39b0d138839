//! Adoption of a row of another tool, on the condition that it is as it was read, nulls and all.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::{EndReason, LeaseEnd, Status, adoptions};
use broker_store::{ClaimOutcome, EntryConflict, Minted, Survey, Write};

use crate::place::Place;

async fn put_foreign(place: &Place, updated_at: u64) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |number: u64| AttributeValue::N(number.to_string());
    let item = HashMap::from([
        ("PK", text("SBX#foreign")),
        ("SK", text("META")),
        ("name", text("name")),
        ("external_id", text("identity/accounts/1")),
        ("status", text("allocated")),
        ("allocated_to_track", text("student-1")),
        ("allocated_at", number(1_000)),
        ("updated_at", number(updated_at)),
        ("deletion_requested_at", AttributeValue::Null(true)),
        ("idempotency_key", text("")),
    ]);
    let item = item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let put = place.aws.dynamodb.put_item().table_name(&place.table).set_item(Some(item));
    put.send().await.expect("PutItem");
}

async fn survey(place: &Place) -> Survey {
    place
        .store
        .adopt
        .survey(0, 1, None, broker_domain::LabDuration::nearest(4), place.clock.now())
        .await
        .expect("read")
        .items
}

async fn adopt(place: &Place, survey: Survey) -> Write<EntryConflict> {
    let mut planned = adoptions(survey.foreign, survey.held.into_iter().collect());
    let (sandbox, row, adoption) = planned.remove(0);
    let now = place.clock.now();
    let minted =
        Minted { allocation_id: place.entropy.allocation_id(), request_id: place.entropy.request_id(now) };
    place.store.adopt.row(&sandbox, &row, &adoption, minted, now).await.expect("the table answers")
}

#[tokio::test]
async fn a_row_is_taken_over_as_it_was_read_or_not_at_all() {
    let place = Place::with_table().await;
    put_foreign(&place, 1).await;
    let before = survey(&place).await;
    put_foreign(&place, 2).await;
    assert_eq!(adopt(&place, before).await, Write::Rejected(EntryConflict::MovedOn(())));
    assert_eq!(survey(&place).await.foreign.len(), 1, "and leaves no lease");
    assert_eq!(survey(&place).await.held, []);

    let again = survey(&place).await;
    assert_eq!(adopt(&place, again).await, Write::Applied);
    let after = survey(&place).await;
    assert_eq!((after.foreign.len(), after.ours, after.held.len()), (0, 1, 1));
    let page = place.store.scans.page(0, 1, None).await.expect("read");
    let (sandbox, lease) = (&page.items.sandboxes[0], &page.items.leases[0]);
    assert_eq!((sandbox.status, sandbox.version), (Status::Allocated, 1));
    assert_eq!(sandbox.allocation.as_ref().map(|allocation| allocation.id), Some(lease.allocation_id));
    let listed = place
        .store
        .sandboxes
        .listed(Status::Allocated, place.store.sandboxes.shard_of(&sandbox.id), None)
        .await;
    assert_eq!(listed.expect("listed").items.len(), 1);
}

#[tokio::test]
async fn an_owner_who_got_a_lease_meanwhile_keeps_that_one() {
    let place = Place::with_table().await;
    put_foreign(&place, 1).await;
    let before = survey(&place).await;
    let free = place.seed(1).await.remove(0);
    let ask = place.ask("student-1");
    assert!(matches!(place.claim(&ask, &free).await, ClaimOutcome::Created(_)));
    let lease = place.store.leases.get(&ask.lease_key).await.expect("read");
    assert_eq!(adopt(&place, before).await, Write::Rejected(EntryConflict::MovedOn(())));
    assert_eq!(place.store.leases.get(&ask.lease_key).await.expect("read"), lease);
    assert_eq!(survey(&place).await.foreign.len(), 1, "nor is the row touched");

    let sandbox = place.store.sandboxes.get(&free.sandbox_id).await.expect("read").expect("there");
    let end = LeaseEnd::by_broker(EndReason::Released, place.clock.now(), place.clock.now());
    place.store.leases.end(&sandbox.id, &sandbox.allocation.expect("allocated"), &end).await.expect("ended");
    let again = survey(&place).await;
    assert_eq!(adopt(&place, again).await, Write::Applied, "an ended lease is in no request's way");
}
