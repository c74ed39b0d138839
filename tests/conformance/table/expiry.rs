//! Expiry: how long an item is kept once it is finished; unfinished ones are kept forever.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::{EndReason, Job, JobReport, LeaseEnd, PersistedRequest, Status, Task};
use broker_store::{Act, Actor, AuditLine, Instance, Role, Seen, Write};

use super::letters::letter;
use super::records::queued;
use crate::place::Place;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The ttl of the one item whose partition key or sort key begins so, in seconds since the epoch.
async fn ttl(place: &Place, key: &str) -> Option<u64> {
    let scan = place.aws.dynamodb.scan().table_name(&place.table).consistent_read(true);
    let scan = scan.filter_expression("begins_with(PK, :key) or begins_with(SK, :key)");
    let scan = scan.expression_attribute_values(":key", AttributeValue::S(key.to_owned()));
    let items = scan.send().await.expect("Scan").items.unwrap_or_default();
    let [item] = &items[..] else { panic!("{} items begin with {key}", items.len()) };
    item.get("ttl").map(|ttl| ttl.as_n().expect("a number").parse().expect("a number"))
}

#[tokio::test]
async fn a_lease_and_its_sandbox_may_only_leave_once_they_ended() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let (store, now) = (&place.store, place.clock.now());
    place.claim(&place.ask("student-1"), &free).await;
    assert_eq!((ttl(&place, "LEASE#").await, ttl(&place, "SBX#").await), (None, None), "live");
    let sandbox = store.sandboxes.get(&free.sandbox_id).await.expect("read").expect("there");
    let end = LeaseEnd::by_broker(EndReason::Expired, now, now);
    store.leases.end(&sandbox.id, &sandbox.allocation.expect("allocated"), &end).await.expect("ended");
    let kept = Some(now.plus(DAY * 30).as_secs());
    assert_eq!((ttl(&place, "LEASE#").await, ttl(&place, "SBX#").await), (kept, None), "not deleted yet");
    let seen = Seen { id: &sandbox.id, version: 3 };
    let buried = store
        .deletions
        .write_tombstone(seen, Status::PendingDeletion, &sandbox.external_id, now)
        .await
        .expect("asked");
    assert_eq!((buried, ttl(&place, "SBX#").await), (Write::Applied, None), "its account may come back");
}

#[tokio::test]
async fn each_record_is_kept_as_long_as_somebody_may_ask_for_it() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let id = place.entropy.request_id(now);
    let request = PersistedRequest { deadline: now.plus(DAY), ..queued(&place, "student-1") };
    store.requests.record(&request).await.expect("recorded");
    assert_eq!(ttl(&place, "REQ#").await, Some(now.plus(DAY * 31).as_secs()), "30 days after its deadline");

    store.runs.record(id, "census", now).await.expect("recorded");
    assert_eq!(ttl(&place, "RUN#").await, Some(now.plus(DAY * 7).as_secs()));
    store.runs.complete(id, &JobReport::new(&Task::Census), true, now.plus(DAY)).await.expect("told");
    assert_eq!(ttl(&place, "RUN#").await, Some(now.plus(DAY * 8).as_secs()));

    store.instances.heartbeat(&Instance::new(place.entropy.uuid(), Role::Worker, now)).await.expect("said");
    assert_eq!(ttl(&place, "INSTANCE").await, Some(now.plus(DAY).as_secs()));
    store.schedule.tick(Job::Census, Duration::ZERO, now).await.expect("made");
    assert_eq!(ttl(&place, "TICK#").await, None);
}

#[tokio::test]
async fn a_letter_stays_until_it_is_done_with_and_longer_than_its_dead_message() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let actor = Actor { action: place.entropy.uuid(), by: "cli".to_owned(), at: now };
    let (discarded, replayed) = (letter("m-1", now), letter("m-2", now.plus(DAY)));
    for letter in [&discarded, &replayed] {
        store.dead_letters.record(letter, None).await.expect("kept");
    }
    assert_eq!(ttl(&place, discarded.id.as_str()).await, None);
    store.dead_letters.discard(&discarded, None, &actor, "a test").await.expect("discarded");
    assert_eq!(ttl(&place, discarded.id.as_str()).await, Some(now.plus(DAY * 15).as_secs()));
    store.dead_letters.take(&replayed.id, &actor, now.plus(DAY), None).await.expect("taken");
    assert_eq!(ttl(&place, replayed.id.as_str()).await, None, "its replay may die");
    store.dead_letters.mark_replayed(&replayed.id, &actor).await.expect("sent");
    assert_eq!(ttl(&place, replayed.id.as_str()).await, Some(now.plus(DAY * 15).as_secs()));
}

#[tokio::test]
async fn an_act_is_told_whole_for_four_hundred_days_and_ends_once() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let line = AuditLine {
        at: now,
        id: place.entropy.uuid(),
        who: "cli".to_owned(),
        act: Act::Replay,
        target: "all".to_owned(),
        why: Some("the network was away".to_owned()),
        count: Some(7),
        ended: None,
    };
    for _ in 0..2 {
        store.audit.record(&line).await.expect("written, or its own");
    }
    assert_eq!(ttl(&place, "AUDIT#").await, Some(now.plus(DAY * 400).as_secs()));
    for (how, expected) in [("3 sent", Write::Applied), ("4 sent", Write::Rejected(()))] {
        assert_eq!(store.audit.record_end(line.id, line.at, how).await.expect("asked"), expected);
    }
    let stranger = store.audit.record_end(place.entropy.uuid(), line.at, "none").await.expect("asked");
    assert_eq!(stranger, Write::Rejected(()), "no line comes out of nothing");
    let page = store.audit.of_day(now, None).await.expect("read");
    assert_eq!(page.items, [AuditLine { ended: Some("3 sent".to_owned()), ..line }]);
    assert!(page.next.is_none());
    assert!(store.audit.of_day(now.plus(DAY), None).await.expect("read").items.is_empty(), "another day");
}
