//! Tests of dead letters on a table: pages under any bounds, and the hold of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_dead_letters::DeadLetterListing;
use broker_domain::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterState, MessageSummary, Reason, Source, Timestamp,
};
use broker_store::{Actor, DeadLetterOrder, Store, StoreError, Write, schema};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Local;

const NOW: Timestamp = Timestamp::from_ms(1_795_368_969_123);

async fn store(local: &Local) -> Store {
    schema::ensure(&local.dynamodb, "letters").await.unwrap();
    Store::new(local.dynamodb.clone(), "letters", 4)
}

/// A letter whose message was first sent `number` milliseconds after the first.
fn letter(number: u64, reason: Reason, body: &str) -> DeadLetter {
    let first_at = Timestamp::from_ms(NOW.as_ms() + number);
    let message_id = format!("m-{number}");
    DeadLetter {
        id: DeadLetterId::of(Source::Requests, &message_id, body, first_at),
        source: Source::Requests,
        message_id,
        reason,
        reason_text: String::new(),
        receives: 1,
        first_at,
        last_at: first_at,
        summary: MessageSummary::default(),
        replay_of: None,
        attributes: BTreeMap::new(),
        body: body.to_owned(),
        state: DeadLetterState::Dead,
        held_until: None,
        touched: None,
    }
}

fn actor(action: u128, at: Timestamp) -> Actor {
    Actor { action: Uuid::from_u128(action), by: "test".to_owned(), at }
}

/// Keeps all of them at the same time.
async fn keep(store: &Store, letters: Vec<DeadLetter>) -> Vec<(DeadLetterId, Result<Write, StoreError>)> {
    let mut keeping = JoinSet::new();
    for letter in letters {
        let store = store.clone();
        keeping.spawn(async move {
            let kept = store.dead_letters.record(&letter, None).await;
            (letter.id, kept)
        });
    }
    keeping.join_all().await
}

#[tokio::test]
async fn pages_hold_every_letter_that_matches_once_and_in_order_however_little_is_read_for_each() {
    let local = Local::start().await;
    let store = store(&local).await;
    // One in fifty matches.
    let reason = |n: u64| if n.is_multiple_of(50) { Reason::Refused } else { Reason::Malformed };
    let letters: Vec<_> = (0..400).map(|n| letter(n, reason(n), "")).collect();
    let wanted: Vec<_> = letters
        .iter()
        .filter(|letter| letter.reason == Reason::Refused)
        .map(|letter| letter.id.clone())
        .collect();
    keep(&store, letters).await;
    let orders = [DeadLetterOrder::OldestFirst, DeadLetterOrder::NewestFirst];
    let ways = [(1, 4, 3), (7, 5, 1), (1_000, 4, 100), (3, 9, 8)];
    for (order, (read, reads, page)) in orders.into_iter().flat_map(|order| ways.map(|way| (order, way))) {
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let filter = DeadLetterFilter { reason: Some(Reason::Refused), ..DeadLetterFilter::default() };
            let mut listing =
                DeadLetterListing::new(store.clone(), filter, order, cursor.as_ref()).bounded(read, reads);
            let mut told = 0;
            while told < page
                && let Some(letter) = listing.next().await.unwrap()
            {
                found.push(letter.id);
                told += 1;
            }
            pages += 1;
            assert!(pages < 500, "the cursor goes on");
            cursor = listing.cursor().cloned();
            if cursor.is_none() {
                break;
            }
        }
        if order == DeadLetterOrder::NewestFirst {
            found.reverse();
        }
        assert_eq!(found, wanted, "{order:?}, {read} letters a read, {reads} reads, {page} a page");
    }
    let time = |n| Some(Timestamp::from_ms(NOW.as_ms() + n));
    let filter = DeadLetterFilter { since: time(100), before: time(110), ..DeadLetterFilter::default() };
    for order in orders {
        let mut listing = DeadLetterListing::new(store.clone(), filter.clone(), order, None);
        let mut found = 0;
        while listing.next().await.unwrap().is_some() {
            found += 1;
        }
        assert_eq!((found, listing.cursor()), (10, None));
    }
}

#[tokio::test]
async fn a_letter_is_kept_once_and_one_that_the_table_does_not_take_harms_no_other() {
    let local = Local::start().await;
    let store = store(&local).await;
    let mut letters: Vec<_> = (0..40).map(|n| letter(n, Reason::Malformed, "x")).collect();
    let huge = letter(99, Reason::Malformed, &"x".repeat(450_000));
    letters.push(huge.clone());
    letters.extend(letters[..20].to_vec());
    let kept = keep(&store, letters).await;
    let count = |wanted: Write| {
        kept.iter().filter(|(_, kept)| kept.as_ref().is_ok_and(|kept| *kept == wanted)).count()
    };
    assert_eq!((count(Write::Applied), count(Write::Rejected(()))), (40, 20));
    let refused: Vec<_> = kept.iter().filter(|(_, kept)| kept.is_err()).collect();
    assert!(
        matches!(refused.as_slice(), [(id, Err(StoreError::Refused { .. }))] if *id == huge.id),
        "{refused:?}"
    );
}

#[tokio::test]
async fn of_many_hands_one_takes_a_letter_and_the_next_only_once_it_is_not_held_any_more() {
    let local = Local::start().await;
    let store = store(&local).await;
    let letter = letter(1, Reason::Malformed, "x");
    store.dead_letters.record(&letter, None).await.unwrap();
    let until = NOW.plus(Duration::from_secs(15));
    let mut hands = JoinSet::new();
    for action in 0..20 {
        let (store, id) = (store.clone(), letter.id.clone());
        hands.spawn(async move {
            (action, store.dead_letters.take(&id, &actor(action, NOW), until, None).await.unwrap())
        });
    }
    let took: Vec<_> =
        hands.join_all().await.into_iter().filter(|(_, took)| *took == Write::Applied).collect();
    let [(first, _)] = took.as_slice() else { panic!("{took:?}") };
    assert_eq!(
        store.dead_letters.discard(&letter, None, &actor(50, NOW), "no").await.unwrap(),
        Write::Rejected(())
    );
    // The hold has passed: the next action takes it, and the first can no longer mark it as sent.
    assert_eq!(
        store.dead_letters.take(&letter.id, &actor(60, until), until, None).await.unwrap(),
        Write::Applied
    );
    assert_eq!(
        store.dead_letters.mark_replayed(&letter.id, &actor(*first, until)).await.unwrap(),
        Write::Rejected(())
    );
    assert_eq!(
        store.dead_letters.mark_replayed(&letter.id, &actor(60, until)).await.unwrap(),
        Write::Applied
    );
    assert_eq!(
        store.dead_letters.take(&letter.id, &actor(70, until), until, None).await.unwrap(),
        Write::Rejected(())
    );
    assert_eq!(store.dead_letters.get(&letter.id).await.unwrap().unwrap().state, DeadLetterState::Replayed);
}
