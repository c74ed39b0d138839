//! Dead letters: kept once, replayed by one action, and the waiting record failed in the same write.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_dead_letters::{Action, ActionOptions, DeadLetters, Selection};
use broker_domain::{
    DeadLetter, DeadLetterId, DeadLetterState, JobReport, MessageSummary, Outcome, PersistedRequest, Reason,
    RequestState, ReturnRequest, SandboxId, Source, Subject, Task, Times, Timestamp, TrackId,
};
use broker_queue::{QueueKind, Sender};
use broker_store::{Actor, DeadLetterOrder, PendingRecord, Requeued, StoreError, Write};
use broker_tests::together;
use tokio_util::sync::CancellationToken;

use super::records::queued;
use crate::place::Place;

pub(super) fn letter(message_id: &str, at: Timestamp) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::of(Source::Requests, message_id, "{}", at),
        source: Source::Requests,
        message_id: message_id.to_owned(),
        reason: Reason::Malformed,
        reason_text: "not a message".to_owned(),
        receives: 1,
        first_at: at,
        last_at: at,
        summary: MessageSummary::default(),
        replay_of: None,
        attributes: [("traceparent".to_owned(), "00-x".to_owned())].into(),
        body: "{}".to_owned(),
        state: DeadLetterState::Dead,
        held_until: None,
        touched: None,
    }
}

pub(super) fn actor(place: &Place, at: Timestamp) -> Actor {
    Actor { action: place.entropy.uuid(), by: "cli".to_owned(), at }
}

pub(super) fn asked(place: &Place) -> PersistedRequest {
    PersistedRequest { asynchronous: true, ..queued(place, "student-1") }
}

/// A letter, and the record of the asynchronous request that it is of.
async fn of_a_request(place: &Place) -> (DeadLetter, PersistedRequest) {
    let record = asked(place);
    place.store.requests.record(&record).await.expect("recorded");
    (letter("m-1", place.clock.now()), record)
}

/// Its message, queued again.
pub(super) fn reopened(record: &PersistedRequest, deadline: Timestamp) -> Requeued {
    Requeued::Request { id: record.request_id, message: "again".to_owned(), deadline }
}

#[tokio::test]
async fn a_letter_is_kept_once_and_fails_the_request_that_waits() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (letter, record) = of_a_request(&place).await;
    let pending = PendingRecord::Request(record.request_id);
    for expected in [Write::Applied, Write::Rejected(())] {
        assert_eq!(store.dead_letters.record(&letter, Some(&pending)).await.expect("asked"), expected);
    }
    assert_eq!(store.dead_letters.get(&letter.id).await.expect("read"), Some(letter.clone()));
    let outcome = Outcome::DeadLettered { reason: "malformed".to_owned() };
    let failed = store.requests.get(record.request_id).await.expect("read").expect("there");
    assert_eq!((failed.state, failed.message), (RequestState::Ended(outcome), None));
    // Of a request that ended before, only the letter is new.
    let late = self::letter("m-2", now);
    assert_eq!(store.dead_letters.record(&late, Some(&pending)).await.expect("asked"), Write::Applied);
    assert_eq!(store.dead_letters.record(&late, None).await.expect("asked"), Write::Rejected(()));
}

#[tokio::test]
async fn a_run_is_told_that_it_died_and_waits_again_for_its_replay() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (id, letter) = (place.entropy.request_id(now), letter("m-1", now));
    store.runs.record(id, "census", now).await.expect("recorded");
    let died = JobReport { failed: 1, ..JobReport::new(&Task::Census) };
    let told =
        store.dead_letters.record(&letter, Some(&PendingRecord::Run(id, died.clone()))).await.expect("asked");
    assert_eq!(told, Write::Applied);
    assert_eq!(store.runs.get(id).await.expect("read").expect("there").report, Some(died));
    let until = now.plus(Duration::from_secs(60));
    let taken =
        store.dead_letters.take(&letter.id, &actor(&place, now), until, Some(&Requeued::Run(id))).await;
    assert_eq!(taken.expect("asked"), Write::Applied);
    assert_eq!(store.runs.get(id).await.expect("read").expect("there").report, None);
    // A real outcome stays, whatever dead letter comes later.
    let report = JobReport { changed: 3, ..JobReport::new(&Task::Census) };
    assert_eq!(store.runs.complete(id, &report, true, now).await.expect("asked"), Write::Applied);
    let again = self::letter("m-2", now);
    let told =
        store.dead_letters.record(&again, Some(&PendingRecord::Run(id, JobReport::new(&Task::Census)))).await;
    assert_eq!(told.expect("asked"), Write::Applied);
    let taken =
        store.dead_letters.take(&again.id, &actor(&place, now), until, Some(&Requeued::Run(id))).await;
    assert_eq!(taken.expect("asked"), Write::Applied);
    assert_eq!(store.runs.get(id).await.expect("read").expect("there").report, Some(report));
}

#[tokio::test]
async fn a_replay_holds_its_letter_until_it_is_over_and_queues_the_request_again() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (letter, record) = of_a_request(&place).await;
    store.dead_letters.record(&letter, Some(&PendingRecord::Request(record.request_id))).await.expect("kept");

    let (first, until) = (actor(&place, now), now.plus(Duration::from_secs(60)));
    let deadline = now.plus(Duration::from_secs(900));
    let reopened = reopened(&record, deadline);
    let taken = store.dead_letters.take(&letter.id, &first, until, Some(&reopened)).await.expect("asked");
    assert_eq!(taken, Write::Applied);
    let queued = store.requests.get(record.request_id).await.expect("read").expect("there");
    assert_eq!((queued.state, queued.deadline), (RequestState::Queued, deadline));
    assert_eq!(queued.message.as_deref(), Some("again"));
    let held = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
    assert_eq!((held.state, held.held_until), (DeadLetterState::Replaying, Some(until)));
    assert_eq!(held.touched.map(|touched| (touched.at, touched.by)), Some((now, "cli".to_owned())));

    let again = store.dead_letters.take(&letter.id, &first, until, Some(&reopened)).await.expect("asked");
    assert_eq!(again, Write::Applied, "its answer was lost");

    let (second, later) = (actor(&place, now), actor(&place, until));
    let take = async |actor: &Actor| {
        store
            .dead_letters
            .take(&letter.id, actor, until.plus(Duration::from_secs(60)), None)
            .await
            .expect("asked")
    };
    assert_eq!(take(&second).await, Write::Rejected(()), "it is held");
    let discarded = store.dead_letters.discard(&letter, None, &second, "unwanted").await.expect("asked");
    assert_eq!(discarded, Write::Rejected(()), "a letter that is being replayed is not discarded");
    let soon = now.plus(Duration::from_secs(15));
    let taken = store.dead_letters.take(&letter.id, &second, soon, None).await.expect("asked");
    assert_eq!(taken, Write::Applied, "it is held for longer than anybody holds one");
    assert_eq!(take(&later).await, Write::Applied, "its holder died");
    assert_eq!(
        store.dead_letters.mark_replayed(&letter.id, &first).await.expect("asked"),
        Write::Rejected(())
    );
    assert_eq!(store.dead_letters.mark_replayed(&letter.id, &later).await.expect("asked"), Write::Applied);
    assert_eq!(
        take(&actor(&place, until.plus(Duration::from_secs(900)))).await,
        Write::Rejected(()),
        "sent is sent"
    );
    let sent = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
    assert_eq!((sent.state, sent.held_until), (DeadLetterState::Replayed, None));
}

/// SQS delivers the dead message once more, after an operator had it sent again.
#[tokio::test]
async fn a_dead_message_that_comes_again_fails_nothing_that_was_replayed_meanwhile() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (letter, record) = of_a_request(&place).await;
    let pending = PendingRecord::Request(record.request_id);
    store.dead_letters.record(&letter, Some(&pending)).await.expect("kept");
    let deadline = now.plus(Duration::from_secs(900));
    let reopened = reopened(&record, deadline);
    let by = actor(&place, now);
    store.dead_letters.take(&letter.id, &by, deadline, Some(&reopened)).await.expect("taken");
    assert_eq!(store.dead_letters.record(&letter, Some(&pending)).await.expect("asked"), Write::Rejected(()));
    let waits = store.requests.get(record.request_id).await.expect("read").expect("there");
    assert_eq!(waits.state, RequestState::Queued);
}

/// More than an item may have: it cannot be kept, and the others of its call are.
#[tokio::test]
async fn a_letter_that_the_table_refuses_costs_its_neighbours_nothing() {
    let place = Place::with_table().await;
    let now = place.clock.now();
    let letters = (0..12_u64).map(|n| {
        let mut letter = letter(&format!("m-{n}"), now);
        if n == 7 {
            letter.body = "x".repeat(450_000);
        }
        letter
    });
    let kept = letters.map(|letter| {
        let store = place.store.clone();
        async move { store.dead_letters.record(&letter, None).await }
    });
    for (number, kept) in together(kept.collect::<Vec<_>>()).await.into_iter().enumerate() {
        match number {
            7 => assert!(matches!(kept, Err(StoreError::Refused { .. })), "{kept:?}"),
            _ => assert_eq!(kept.expect("kept"), Write::Applied, "{number}"),
        }
    }
}

/// The first of the two was cancelled, the second is waited for over HTTP, the third's run has no record.
#[tokio::test]
async fn a_letter_and_its_replay_touch_nothing_but_what_waited_for_the_message() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (cancelled, waited_for) = (asked(&place), queued(&place, "student-2"));
    for record in [&cancelled, &waited_for] {
        store.requests.record(record).await.expect("recorded");
    }
    store.requests.cancel(cancelled.request_id).await.expect("cancelled");
    let deadline = now.plus(Duration::from_secs(900));
    for (number, record) in [&cancelled, &waited_for].into_iter().enumerate() {
        let before = store.requests.get(record.request_id).await.expect("read");
        let letter = letter(&format!("m-{number}"), now);
        let pending = PendingRecord::Request(record.request_id);
        assert_eq!(store.dead_letters.record(&letter, Some(&pending)).await.expect("asked"), Write::Applied);
        assert_eq!(store.requests.get(record.request_id).await.expect("read"), before);
        let reopened = reopened(record, deadline);
        let taken = store.dead_letters.take(&letter.id, &actor(&place, now), deadline, Some(&reopened)).await;
        assert_eq!(taken.expect("asked"), Write::Applied);
        assert_eq!(store.requests.get(record.request_id).await.expect("read"), before);
    }
    let (nobodys, letter) = (place.entropy.request_id(now), letter("m-2", now));
    let pending = PendingRecord::Run(nobodys, JobReport::new(&Task::Census));
    assert_eq!(store.dead_letters.record(&letter, Some(&pending)).await.expect("asked"), Write::Applied);
    assert_eq!(store.runs.get(nobodys).await.expect("read"), None, "no record comes out of nothing");
}

#[tokio::test]
async fn a_replay_that_died_is_begun_anew_with_what_it_sends() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (letter, record) = of_a_request(&place).await;
    store.dead_letters.record(&letter, Some(&PendingRecord::Request(record.request_id))).await.expect("kept");
    for (at, message) in [(now, "first"), (now.plus(Duration::from_secs(60)), "second")] {
        let until = at.plus(Duration::from_secs(60));
        let reopened =
            Requeued::Request { id: record.request_id, message: message.to_owned(), deadline: until };
        let taken = store.dead_letters.take(&letter.id, &actor(&place, at), until, Some(&reopened)).await;
        assert_eq!(taken.expect("asked"), Write::Applied);
        let queued = store.requests.get(record.request_id).await.expect("read").expect("there");
        assert_eq!((queued.message.as_deref(), queued.deadline), (Some(message), until));
    }
}

#[tokio::test]
async fn a_discarded_letter_says_why_and_stays_so() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let letter = letter("m-1", now);
    let by = actor(&place, now);
    assert_eq!(
        store.dead_letters.discard(&letter, None, &by, "none").await.expect("asked"),
        Write::Rejected(()),
        "no such letter"
    );
    store.dead_letters.record(&letter, None).await.expect("kept");
    for expected in [Write::Applied, Write::Rejected(())] {
        assert_eq!(
            store.dead_letters.discard(&letter, None, &by, "sent by a test").await.expect("asked"),
            expected
        );
    }
    let discarded = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
    assert_eq!(discarded.state, DeadLetterState::Discarded);
    assert_eq!(discarded.touched.and_then(|touched| touched.why).as_deref(), Some("sent by a test"));
    let taken = store.dead_letters.take(&letter.id, &by, now, None).await.expect("asked");
    assert_eq!(taken, Write::Rejected(()));
}

#[tokio::test]
async fn a_letter_whose_replay_died_is_discarded_with_what_it_had_queued_again() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (dead, record) = of_a_request(&place).await;
    let pending = PendingRecord::Request(record.request_id);
    store.dead_letters.record(&dead, Some(&pending)).await.expect("kept");
    let (until, again) = (now.plus(Duration::from_secs(15)), reopened(&record, now));
    store.dead_letters.take(&dead.id, &actor(&place, now), until, Some(&again)).await.expect("taken");
    let left = store.dead_letters.get(&dead.id).await.expect("read").expect("there");
    let discard = async |letter: &DeadLetter, at: Timestamp| {
        store.dead_letters.discard(letter, Some(&pending), &actor(&place, at), "a test").await.expect("asked")
    };
    let second = Duration::from_secs(1);
    assert_eq!(discard(&left, now.plus(14 * second)).await, Write::Rejected(()), "it is held");
    assert_eq!(discard(&dead, until).await, Write::Rejected(()), "it is not as it was read");
    assert_eq!(discard(&left, until).await, Write::Applied);
    let discarded = store.dead_letters.get(&dead.id).await.expect("read").expect("there");
    assert_eq!((discarded.state, discarded.held_until), (DeadLetterState::Discarded, None));
    let failed = store.requests.get(record.request_id).await.expect("read").expect("there");
    let reason = dead.reason.as_str().to_owned();
    assert_eq!(failed.state, RequestState::Ended(Outcome::DeadLettered { reason }));
}

/// A clock that was far ahead held it.
#[tokio::test]
async fn a_letter_that_is_held_for_longer_than_anybody_holds_one_is_discarded() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let letter = letter("m-1", now);
    store.dead_letters.record(&letter, None).await.expect("kept");
    let day = now.plus(Duration::from_secs(24 * 3_600));
    store.dead_letters.take(&letter.id, &actor(&place, day), day, None).await.expect("taken");
    let left = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
    let discarded = store.dead_letters.discard(&left, None, &actor(&place, now), "a test").await;
    assert_eq!(discarded.expect("asked"), Write::Applied);
}

#[tokio::test]
async fn letters_of_a_time_are_read_page_by_page_in_their_order() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let mut kept: Vec<_> =
        (0..40_u64).map(|n| letter(&format!("m-{n}"), now.plus(Duration::from_secs(n)))).collect();
    for letter in &kept {
        store.dead_letters.record(letter, None).await.expect("kept");
    }
    let shard = kept[0].id.shard();
    kept.retain(|letter| letter.id.shard() == shard);
    kept.sort_by(|a, b| a.id.cmp(&b.id));
    let (mut read, mut from) = (Vec::new(), DeadLetterId::time(now));
    let until = kept.last().map(|letter| letter.id.to_string()).expect("the first is of it");
    loop {
        let page = store
            .dead_letters
            .page(shard, DeadLetterOrder::OldestFirst, &from, &until, Some(1))
            .await
            .expect("read");
        assert_eq!(page.items.unreadable, Vec::<String>::new());
        read.extend(page.items.letters);
        match page.next {
            Some(read_to) if read_to.as_str() < until.as_str() => from = format!("{read_to}!"),
            _ => break,
        }
    }
    assert_eq!(read, kept);
    let from = DeadLetterId::time(now);
    let page = store
        .dead_letters
        .page(shard, DeadLetterOrder::NewestFirst, &from, &until, Some(1))
        .await
        .expect("read");
    assert_eq!(page.items.letters.first(), kept.last());
    let none = store
        .dead_letters
        .page(
            shard,
            DeadLetterOrder::OldestFirst,
            &DeadLetterId::time(Timestamp::from_ms(1)),
            &DeadLetterId::time(now),
            None,
        )
        .await;
    assert!(none.expect("read").items.letters.is_empty(), "of another time");
}

#[tokio::test]
async fn a_letter_of_a_return_ends_its_record_also_before_it_is_written_and_a_replay_opens_it_again() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let returned = |track: &str| ReturnRequest {
        request_id: place.entropy.request_id(now),
        track: TrackId::new(track).expect("valid"),
        sandbox_id: SandboxId::new("sandbox-000").expect("valid"),
        times: Times { enqueued_at: now, reply_by: now, deadline: now },
    };
    let (unrecorded, recorded, done) = (returned("student-1"), returned("student-2"), returned("student-3"));
    let record = |request: &ReturnRequest| PersistedRequest {
        request_id: request.request_id,
        subject: Subject::Return(request.sandbox_id.clone()),
        ..queued(&place, request.track.as_str())
    };
    store.requests.record(&record(&recorded)).await.expect("recorded");
    let ended = PersistedRequest { state: RequestState::Ended(Outcome::NotOwner), ..record(&done) };
    store.requests.complete(&ended).await.expect("stored");
    let state = async |request: &ReturnRequest| {
        store.requests.get(request.request_id).await.expect("read").expect("recorded").state
    };
    for (number, request) in [&unrecorded, &recorded, &done].into_iter().enumerate() {
        let letter = letter(&format!("m-{number}"), now);
        let pending = PendingRecord::Return(request.clone());
        assert_eq!(store.dead_letters.record(&letter, Some(&pending)).await.expect("kept"), Write::Applied);
    }
    for request in [&unrecorded, &recorded] {
        let died = RequestState::Ended(Outcome::DeadLettered { reason: "malformed".to_owned() });
        assert_eq!(state(request).await, died);
    }
    assert_eq!(state(&done).await, RequestState::Ended(Outcome::NotOwner), "the first outcome stays");

    let id = letter("m-0", now).id;
    let again = Requeued::Request { id: unrecorded.request_id, message: "again".to_owned(), deadline: now };
    let taken = store
        .dead_letters
        .take(&id, &actor(&place, now), now.plus(Duration::from_secs(15)), Some(&again))
        .await
        .expect("taken");
    assert_eq!((taken, state(&unrecorded).await), (Write::Applied, RequestState::Queued));
}

/// A place with its table and queues, and what acts on its dead letters.
async fn with_letters() -> (Place, DeadLetters) {
    let (place, urls) = Place::with_queues().await;
    broker_store::schema::ensure(&place.aws.dynamodb, &place.table).await.expect("the table is made");
    let to = |kind| Sender::new(place.aws.sqs.clone(), urls.get(kind), Sender::MAX_IN_FLIGHT);
    let (requests, maintenance) = (to(QueueKind::Requests), to(QueueKind::Maintenance));
    let (store, clock, entropy) = (place.store.clone(), place.clock.clone(), place.entropy.clone());
    let letters = DeadLetters::new(store, requests, maintenance, clock, entropy);
    (place, letters)
}

#[tokio::test]
async fn a_letter_that_is_named_twice_is_sent_once() {
    let (place, letters) = with_letters().await;
    let letter = letter("m-1", place.clock.now());
    assert_eq!(place.store.dead_letters.record(&letter, None).await.expect("asked"), Write::Applied);
    let named = Selection::These(vec![letter.id.clone(), letter.id]);
    let (replay, stop) = (Action::Replay { renew_deadline: false }, CancellationToken::new());
    let told = letters.perform(replay, named, ActionOptions::default(), "op", &stop, |_| ()).await;
    let told = told.expect("performed");
    assert_eq!((told.done, told.skipped, told.failed), (1, 1, 0), "{told:?}");
}

#[tokio::test]
async fn a_named_letter_that_cannot_be_read_is_counted_and_stops_no_other() {
    let (place, letters) = with_letters().await;
    let (store, now) = (&place.store, place.clock.now());
    let (wrong, good) = (letter("m-1", now), letter("m-2", now));
    for one in [&wrong, &good] {
        assert_eq!(store.dead_letters.record(one, None).await.expect("asked"), Write::Applied);
    }
    let update = place.aws.dynamodb.update_item().table_name(&place.table);
    let update = update.key("PK", AttributeValue::S(format!("DEAD#{:02}", wrong.id.shard())));
    let update = update.key("SK", AttributeValue::S(wrong.id.to_string()));
    update.update_expression("REMOVE reason_code").send().await.expect("UpdateItem");
    let named = Selection::These(vec![wrong.id, good.id.clone()]);
    let (discard, stop) = (Action::Discard { why: "a test".to_owned() }, CancellationToken::new());
    let told = letters.perform(discard, named, ActionOptions::default(), "op", &stop, |_| ()).await;
    let told = told.expect("performed");
    assert_eq!((told.done, told.unreadable, told.failed, told.interrupted), (1, 1, 0, false), "{told:?}");
    let left = store.dead_letters.get(&good.id).await.expect("read").expect("there");
    assert_eq!(left.state, DeadLetterState::Discarded);
}
