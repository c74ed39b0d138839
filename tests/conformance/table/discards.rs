//! Discards of dead letters whose replay did not come to its end: they fail only what waits for that replay.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::{JobReport, RequestState, ReturnRequest, SandboxId, Task, Times, TrackId};
use broker_store::{PendingRecord, Requeued, Write};

use super::letters::{actor, asked, letter, reopened};
use super::terms::alter;
use crate::place::Place;

/// The first replay was killed after it had sent, the message died again, and an operator had that letter replayed, too.
#[tokio::test]
async fn a_letter_left_by_its_replay_is_discarded_alone_once_another_replay_queued_its_record_again() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let until = now.plus(Duration::from_secs(15));
    let (record, run) = (asked(&place), place.entropy.request_id(now));
    store.requests.record(&record).await.expect("recorded");
    store.runs.record(run, "census", now).await.expect("recorded");
    let returned = ReturnRequest {
        request_id: place.entropy.request_id(now),
        track: TrackId::new("student-2").expect("valid"),
        sandbox_id: SandboxId::new("sandbox-000").expect("valid"),
        times: Times { enqueued_at: now, reply_by: now, deadline: now },
    };
    let again = |id| Requeued::Request { id, message: "again".to_owned(), deadline: until };
    let cases = [
        (PendingRecord::Request(record.request_id), again(record.request_id)),
        (PendingRecord::Return(returned.clone()), again(returned.request_id)),
        (PendingRecord::Run(run, JobReport::new(&Task::Census)), Requeued::Run(run)),
    ];
    for (number, (pending, again)) in cases.into_iter().enumerate() {
        let letters = ["first", "second"].map(|which| letter(&format!("{which}-{number}"), now));
        for letter in &letters {
            let kept = store.dead_letters.record(letter, Some(&pending)).await.expect("kept");
            let taken = store.dead_letters.take(&letter.id, &actor(&place, now), until, Some(&again)).await;
            assert_eq!((kept, taken.expect("taken")), (Write::Applied, Write::Applied));
        }
        for (letter, expected) in letters.iter().zip([true, false]) {
            let left = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
            let by = actor(&place, until);
            let discarded = store.dead_letters.discard(&left, Some(&pending), &by, "a test").await;
            assert_eq!(discarded.expect("asked"), Write::Applied);
            let waits = match &pending {
                PendingRecord::Request(id) | PendingRecord::Return(ReturnRequest { request_id: id, .. }) => {
                    let record = store.requests.get(*id).await.expect("read").expect("there");
                    record.state == RequestState::Queued
                }
                PendingRecord::Run(id, _) => {
                    store.runs.get(*id).await.expect("read").expect("there").report.is_none()
                }
            };
            assert_eq!(waits, expected, "{}", letter.message_id);
        }
    }
}

/// The killed replay had sent its message.
#[tokio::test]
async fn a_letter_left_by_its_replay_is_discarded_alone_if_its_message_was_handled_or_stands_in_a_line() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let until = now.plus(Duration::from_secs(15));
    for (number, parked) in [false, true].into_iter().enumerate() {
        let record = asked(&place);
        store.requests.record(&record).await.expect("recorded");
        let (pending, again) = (PendingRecord::Request(record.request_id), reopened(&record, until));
        let letter = letter(&format!("m-{number}"), now);
        store.dead_letters.record(&letter, Some(&pending)).await.expect("kept");
        store.dead_letters.take(&letter.id, &actor(&place, now), until, Some(&again)).await.expect("taken");
        if parked {
            let key = format!("REQ#{}", record.request_id);
            alter(&place, &key, "parked", AttributeValue::S("platform#".to_owned())).await;
        } else {
            store.requests.cancel(record.request_id).await.expect("cancelled");
        }
        let before = store.requests.get(record.request_id).await.expect("read");
        let left = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
        let by = actor(&place, until);
        let discarded = store.dead_letters.discard(&left, Some(&pending), &by, "a test").await;
        assert_eq!(discarded.expect("asked"), Write::Applied);
        assert_eq!(store.requests.get(record.request_id).await.expect("read"), before);
    }
    let run = place.entropy.request_id(now);
    store.runs.record(run, "census", now).await.expect("recorded");
    let pending = PendingRecord::Run(run, JobReport { failed: 1, ..JobReport::new(&Task::Census) });
    let letter = letter("m-2", now);
    store.dead_letters.record(&letter, Some(&pending)).await.expect("kept");
    let by = actor(&place, now);
    store.dead_letters.take(&letter.id, &by, until, Some(&Requeued::Run(run))).await.expect("taken");
    let report = JobReport { changed: 3, ..JobReport::new(&Task::Census) };
    store.runs.complete(run, &report, true, now).await.expect("stored");
    let left = store.dead_letters.get(&letter.id).await.expect("read").expect("there");
    let discarded = store.dead_letters.discard(&left, Some(&pending), &actor(&place, until), "a test").await;
    assert_eq!(discarded.expect("asked"), Write::Applied);
    assert_eq!(store.runs.get(run).await.expect("read").expect("there").report, Some(report));
}
