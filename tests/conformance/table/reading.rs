//! Reading all of the table, many items in one call, and several at one instant.

use std::collections::BTreeSet;

use broker_common::domain::Status;
use broker_tests::together;

use crate::place::Place;

#[tokio::test]
async fn segments_of_a_scan_miss_and_repeat_nothing() {
    let place = Place::with_table().await;
    let free = place.seed(60).await;
    for (number, candidate) in free.iter().take(10).enumerate() {
        place.claim(&place.ask(&format!("student-{number}")), candidate).await;
    }
    let (mut sandboxes, mut leases) = (Vec::new(), 0);
    for segment in 0..4 {
        let mut after = None;
        loop {
            let page = place.store.scan(segment, 4, after.take()).await.expect("read");
            assert_eq!(page.unreadable, Vec::<String>::new());
            sandboxes.extend(page.sandboxes.into_iter().map(|sandbox| sandbox.id));
            leases += page.leases.len();
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    assert_eq!((sandboxes.len(), leases), (60, 10));
    assert_eq!(sandboxes.into_iter().collect::<BTreeSet<_>>().len(), 60);
    let counted = place.store.count_all().await.expect("counted");
    assert_eq!((counted[&Status::Available], counted[&Status::Allocated]), (50, 10));
}

#[tokio::test]
async fn a_page_goes_on_where_a_cursor_says() {
    let place = Place::with_table().await;
    let seeded: BTreeSet<_> = place.seed(30).await.into_iter().map(|c| c.sandbox_id).collect();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (records, next) = place.store.browse(after, 7, |_| true).await.expect("read");
        seen.extend(records.into_iter().map(|record| record.sandbox.id));
        let Some(next) = next else { break };
        // As a client keeps it.
        after = broker_common::store::PageKey::parse(&next.encode());
        assert!(after.is_some());
    }
    assert_eq!(seen.len(), 30);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), seeded);
}

/// More than one BatchGetItem takes, some twice, some that are not there.
#[tokio::test]
async fn many_readers_share_their_calls() {
    let place = Place::with_table().await;
    let free = place.seed(110).await;
    let missing = (200..240).map(|number| crate::place::sandbox(number).id);
    let wanted = free.iter().map(|c| c.sandbox_id.clone());
    let wanted: Vec<_> = wanted.clone().chain(wanted.take(20)).chain(missing).collect();
    let reads = wanted.iter().cloned().map(|id| {
        let store = place.store.clone();
        async move { store.sandbox(&id).await.expect("read").map(|sandbox| sandbox.id) }
    });
    let read = together(reads.collect::<Vec<_>>()).await;
    for (wanted, read) in wanted[..130].iter().zip(&read) {
        assert_eq!(Some(wanted), read.as_ref());
    }
    assert!(read[130..].iter().all(Option::is_none));
}

#[tokio::test]
async fn several_items_are_read_at_one_instant() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let (ask, nobody) = (place.ask("student-1"), place.ask("nobody"));
    place.claim(&ask, &free[0]).await;
    let ids: Vec<_> = free.iter().map(|c| c.sandbox_id.clone()).collect();
    let keys = [ask.lease_key, nobody.lease_key];
    let page = place.store.read_together(&ids, &keys).await.expect("read");
    assert_eq!((page.sandboxes.len(), page.leases.len()), (2, 1), "absent ones are left out");
}
