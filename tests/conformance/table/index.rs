//! State index: available sandboxes, by name and prefix, page by page; due ones, by time.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_domain::{EndReason, LeaseEnd, NamePrefix, SandboxId, Status};
use broker_store::{Candidate, Pages, Seen, Write};

use crate::place::{Place, SHARDS};

fn prefix(text: &str) -> NamePrefix {
    NamePrefix::new(text).expect("a valid prefix")
}

fn ids(candidates: &[Candidate]) -> BTreeSet<SandboxId> {
    candidates.iter().map(|candidate| candidate.sandbox_id.clone()).collect()
}

/// Every page of a shard.
async fn shard(place: &Place, shard: u8, prefix: Option<&NamePrefix>, limit: u16) -> Vec<Candidate> {
    let mut pages = Pages::new(|after| place.store.sandboxes.available(shard, prefix, after, limit));
    let mut all = Vec::new();
    while let Some(page) = pages.next().await.expect("listed") {
        assert!(page.len() <= usize::from(limit));
        all.extend(page);
    }
    all
}

/// Every page of a sweep.
async fn sweep(place: &Place, prefix: Option<&NamePrefix>, limit: u16) -> Vec<Candidate> {
    let mut pages = Pages::new(|after| place.store.sandboxes.sweep(prefix, after, limit));
    let mut all = Vec::new();
    while let Some(page) = pages.next().await.expect("listed") {
        all.extend(page);
    }
    all
}

#[tokio::test]
async fn pages_of_a_shard_come_by_name_and_miss_and_repeat_nothing() {
    let place = Place::with_table().await;
    let seeded = place.seed(40).await;
    let mut listed = Vec::new();
    for number in 0..SHARDS {
        let page = shard(&place, number, None, 3).await;
        assert!(page.is_sorted_by_key(|candidate| candidate.name.clone()), "{page:?}");
        assert!(page.iter().all(|candidate| place.store.sandboxes.shard_of(&candidate.sandbox_id) == number));
        listed.extend(page);
    }
    listed.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    assert_eq!(listed, seeded, "with everything that a claim needs");
}

#[tokio::test]
async fn a_prefix_finds_its_few_among_many() {
    let place = Place::with_table().await;
    let seeded = place.seed(40).await;
    let wanted = prefix("name-01");
    let mut listed = BTreeSet::new();
    for number in 0..SHARDS {
        listed.extend(ids(&shard(&place, number, Some(&wanted), 2).await));
    }
    assert_eq!(listed, ids(&seeded[10..20]));
    assert_eq!(ids(&sweep(&place, Some(&wanted), 100).await), listed);
    assert_eq!(sweep(&place, Some(&prefix("name-04")), 100).await, []);
}

#[tokio::test]
async fn one_sweep_sees_every_shard_and_its_pages_miss_and_repeat_nothing() {
    let place = Place::with_table().await;
    assert_eq!(sweep(&place, None, 100).await, [], "an empty pool");
    let seeded = place.seed(40).await;
    for limit in [100, 7] {
        let mut listed = sweep(&place, None, limit).await;
        listed.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
        assert_eq!(listed, seeded, "in pages of {limit}");
    }
}

#[tokio::test]
async fn what_is_claimed_ended_or_buried_leaves_its_place_in_the_index() {
    let place = Place::with_table().await;
    let free = place.seed(3).await;
    place.claim(&place.ask("student-1"), &free[0]).await;
    assert_eq!(ids(&sweep(&place, None, 100).await), ids(&free[1..]));
    let allocated = listed(&place, Status::Allocated).await;
    assert_eq!(ids(&allocated), ids(&free[..1]));
    assert_eq!(allocated[0].version, 2);

    let sandbox = place.store.sandboxes.get(&free[0].sandbox_id).await.expect("read").expect("there");
    let end = LeaseEnd::by_broker(EndReason::Released, place.clock.now(), place.clock.now());
    place.store.leases.end(&sandbox.id, &sandbox.allocation.expect("allocated"), &end).await.expect("ended");
    assert_eq!(listed(&place, Status::Allocated).await, []);
    assert_eq!(listed(&place, Status::PendingDeletion).await[0].version, 3);

    let seen = Seen { id: &sandbox.id, version: 3 };
    let now = place.clock.now();
    let buried =
        place.store.deletions.write_tombstone(seen, Status::PendingDeletion, &sandbox.external_id, now).await;
    assert_eq!(buried.expect("buried"), Write::Applied);
    for status in Status::ALL {
        assert!(!ids(&listed(&place, status).await).contains(&sandbox.id), "{status}");
    }
}

async fn listed(place: &Place, status: Status) -> Vec<Candidate> {
    let mut all = Vec::new();
    for shard in 0..SHARDS {
        all.extend(place.store.sandboxes.listed(status, shard, None).await.expect("listed").items);
    }
    all
}

#[tokio::test]
async fn what_is_due_is_listed_by_its_time_and_nothing_else_is() {
    let place = Place::with_table().await;
    let free = place.seed(9).await;
    let now = place.clock.now();
    let hour = Duration::from_secs(3_600);
    for (number, candidate) in free.iter().enumerate() {
        let since = now.plus(hour * u32::try_from(number).expect("few"));
        let seen = Seen { id: &candidate.sandbox_id, version: 1 };
        assert_eq!(
            place.store.sandboxes.missing(Status::Available, seen, since).await.expect("asked"),
            Write::Applied
        );
    }
    let mut due = Vec::new();
    for shard in 0..SHARDS {
        let page =
            place.store.sandboxes.due(Status::Stale, shard, now.plus(hour * 4), None).await.expect("listed");
        assert!(page.items.is_sorted_by_key(|candidate| candidate.sandbox_id.clone()), "by time");
        due.extend(page.items);
    }
    assert_eq!(ids(&due), ids(&free[..5]), "the last of them to the second");
}
