//! Records beside the pool: requests, ticks, slots, the census, the processes.

use std::collections::BTreeMap;

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::policy::ReservedCount;
use broker_domain::refill::AppliedList;
use broker_domain::{
    DeadLetterCount, IdempotencyKey, Job, JobReport, LeaseKey, Outcome, Pause, PersistedRequest,
    QuarantineCause, RequestState, ReservationId, Status, Subject, Task, TrackId,
};
use broker_store::history::{MinuteGauges, Served, minute_of};
use broker_store::{Binding, Census, ComparedLists, Instance, Pace, PoolStatus, Role, Write};

use broker_tests::together;

use super::terms::alter;
use crate::place::Place;

pub(super) fn queued(place: &Place, track: &str) -> PersistedRequest {
    let now = place.clock.now();
    let track = TrackId::new(track).expect("a valid track");
    PersistedRequest {
        request_id: place.entropy.request_id(now),
        subject: Subject::Allocate(LeaseKey { key: IdempotencyKey::from(&track), track: track.clone() }),
        track,
        asynchronous: false,
        message: Some("what lies in the queue".to_owned()),
        state: RequestState::Queued,
        parked: None,
        created_at: now.floor_to_second(),
        deadline: now.plus(Duration::from_secs(60)),
    }
}

#[tokio::test]
async fn a_request_is_recorded_once_and_ends_once() {
    let place = Place::with_table().await;
    let (store, record) = (&place.store, queued(&place, "student-1"));
    assert_eq!(store.requests.record(&record).await.expect("asked"), Write::Applied);
    let again = store.requests.record(&record).await.expect("asked");
    assert_eq!(again, Write::Rejected(Box::new(record.clone())), "to the millisecond");
    let page = store.requests.queued(None).await.expect("read");
    assert_eq!(page.items, std::slice::from_ref(&record));

    let ended = |outcome| PersistedRequest { state: RequestState::Ended(outcome), ..record.clone() };
    let first = store.requests.complete(&ended(Outcome::NoSandboxes)).await.expect("asked");
    assert_eq!(first, Write::Applied);
    let second = store.requests.complete(&ended(Outcome::Expired)).await.expect("asked");
    let stands = PersistedRequest { message: None, ..ended(Outcome::NoSandboxes) };
    assert_eq!(second, Write::Rejected(Box::new(stands)));
    assert_eq!(store.requests.queued(None).await.expect("read").items, []);
}

#[tokio::test]
async fn a_request_that_nobody_recorded_ends_too_and_one_that_somebody_waits_for_is_not_cancelled() {
    let place = Place::with_table().await;
    let (store, waited_for) = (&place.store, queued(&place, "student-1"));
    let unrecorded =
        PersistedRequest { state: RequestState::Ended(Outcome::NoSandboxes), ..waited_for.clone() };
    let unrecorded =
        PersistedRequest { request_id: place.entropy.request_id(place.clock.now()), ..unrecorded };
    assert_eq!(store.requests.complete(&unrecorded).await.expect("asked"), Write::Applied);
    let stored = store.requests.get(unrecorded.request_id).await.expect("read");
    assert_eq!(stored.map(|record| record.state), Some(unrecorded.state));
    store.requests.record(&waited_for).await.expect("recorded");
    let told = store.requests.cancel(waited_for.request_id).await.expect("asked");
    assert_eq!(told, Write::Rejected(()));
}

#[tokio::test]
async fn expired_is_only_stored_by_the_deadline_that_stands_there() {
    let place = Place::with_table().await;
    let (store, record) = (&place.store, queued(&place, "student-1"));
    store.requests.record(&record).await.expect("recorded");
    let second = Duration::from_secs(1);
    let expired = |deadline| PersistedRequest {
        state: RequestState::Ended(Outcome::Expired),
        deadline,
        ..record.clone()
    };
    // Decided by an earlier deadline: a replay gave it more time since.
    let told = store.requests.complete(&expired(record.deadline.minus(second))).await.expect("asked");
    assert_eq!(told, Write::Rejected(Box::new(record.clone())));
    let told = store.requests.complete(&expired(record.deadline)).await.expect("asked");
    assert_eq!(told, Write::Applied);
    let told = store.requests.complete(&expired(record.deadline.plus(second))).await.expect("asked");
    assert!(matches!(told, Write::Rejected(_)), "{told:?}");
}

#[tokio::test]
async fn workers_that_take_slots_at_the_same_time_share_none() {
    let place = Place::with_table().await;
    let (second, now) = (Duration::from_secs(1), place.clock.now());
    let takers = (0..8).map(|_| {
        let store = place.another_store();
        async move {
            store.rate_slots.take(Pace::Plan, 2, second, now, now.plus(second * 60)).await.expect("asked")
        }
    });
    let mut taken = together(takers.collect::<Vec<_>>()).await;
    taken.sort();
    let expected: Vec<_> = (0..8_u32).map(|n| Some(now.plus(second * n * 2))).collect();
    assert_eq!(taken, expected);
}

#[tokio::test]
async fn a_tick_is_taken_by_one_and_moved_by_it_alone() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let tick = store.schedule.tick(Job::Census, Duration::ZERO, now).await.expect("made");
    assert!(tick.is_free(now, Duration::from_secs(60), Duration::from_secs(60)));
    let until = now.plus(Duration::from_secs(60));
    let take = async || store.schedule.take(Job::Census, &tick, until, now).await.expect("asked");
    assert_eq!((take().await, take().await), (Write::Applied, Write::Rejected(())));
    let next = now.plus(Duration::from_secs(600));
    let stranger = until.plus(Duration::from_millis(1));
    let moved = store.schedule.move_on(Job::Census, &tick, stranger, next).await.expect("asked");
    assert_eq!(moved, Write::Rejected(()));
    let moved = store.schedule.move_on(Job::Census, &tick, until, next).await.expect("asked");
    assert_eq!(moved, Write::Applied);
    // Neither at the run that was read before, nor for a run that another one made of it.
    assert_eq!(
        store.schedule.take(Job::Census, &tick, until, next).await.expect("asked"),
        Write::Rejected(())
    );
    let moved = store.schedule.tick(Job::Census, Duration::ZERO, now).await.expect("read");
    let dead_until = next.plus(Duration::from_secs(60));
    let taken = store.schedule.take(Job::Census, &moved, dead_until, next).await.expect("asked");
    assert_eq!(taken, Write::Applied, "by a worker that dies over it");
    let told = store.schedule.move_on(Job::Census, &tick, dead_until, next).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "it is not the run that was taken");
    let later = dead_until.plus(Duration::from_secs(60));
    let taken = store.schedule.take(Job::Census, &moved, later, dead_until).await.expect("asked");
    assert_eq!(taken, Write::Applied, "by another, once its time is over");
    let told = store.schedule.move_on(Job::Census, &moved, later, next).await.expect("asked");
    assert_eq!(told, Write::Applied);
    assert_eq!(store.schedule.pause(Job::Census, "maria", now).await.expect("asked"), Write::Applied);
    let repeated = store.schedule.pause(Job::Census, "maria", now).await.expect("asked");
    assert_eq!(repeated, Write::Applied, "its answer was lost");
    let again = store.schedule.pause(Job::Census, "ops", later).await.expect("asked");
    let first = Pause::new("maria", now.floor_to_second());
    assert_eq!(again, Write::Rejected(first.clone()), "who and when are of the first");
    let paused = store.schedule.tick(Job::Census, Duration::ZERO, now).await.expect("read");
    assert_eq!((paused.next_run_at, paused.taken_until), (next, None));
    assert_eq!(paused.paused, Some(first));
    assert_eq!(
        store.schedule.take(Job::Census, &paused, until, now).await.expect("asked"),
        Write::Rejected(())
    );
}

#[tokio::test]
async fn what_a_job_ran_for_never_goes_back() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let later = now.plus(Duration::from_secs(1));
    let note = async |ran_for| store.schedule.note_ran_for(Job::Sync, ran_for, now).await.expect("asked");
    assert_eq!(note(now).await, Write::Rejected(()), "no update makes an item");
    let fresh = store.schedule.tick(Job::Sync, Duration::ZERO, now).await.expect("made");
    assert!(!fresh.has_run_for(now, now));
    assert_eq!((note(later).await, note(now).await), (Write::Applied, Write::Rejected(())));
    let tick = store.schedule.tick(Job::Sync, Duration::ZERO, now).await.expect("read");
    assert!(tick.has_run_for(now, now) && tick.has_run_for(later, now));
    assert!(!tick.has_run_for(later.plus(Duration::from_millis(1)), now));
    assert_eq!((tick.next_run_at, tick.paused), (fresh.next_run_at, None));
    // A clock that was wrong keeps no trigger from its run.
    let wrong = now.plus(Duration::from_secs(86_400));
    assert_eq!(note(wrong).await, Write::Applied);
    let tick = store.schedule.tick(Job::Sync, Duration::ZERO, now).await.expect("read");
    assert!(!tick.has_run_for(now, now));
    assert_eq!(note(now).await, Write::Applied);
}

#[tokio::test]
async fn the_last_list_that_was_applied_is_kept_and_one_of_a_wrong_clock_gives_way() {
    let place = Place::with_table().await;
    let (schedule, now) = (&place.store.schedule, place.clock.now());
    let minute = Duration::from_secs(60);
    assert_eq!(schedule.listed().await.expect("read"), None, "no tick");
    let list = |began, hidden| AppliedList { began, hidden };
    let note = async |began| schedule.note_listed(list(began, 2), now).await.expect("asked");
    assert_eq!(note(now).await, Write::Applied);
    assert_eq!(note(now.minus(minute)).await, Write::Rejected(()), "an earlier one that took longer");
    assert_eq!(schedule.listed().await.expect("read"), Some(list(now, 2)));
    let wrong = now.plus(minute);
    assert_eq!((note(wrong).await, note(now).await), (Write::Applied, Write::Applied));
    assert_eq!(schedule.listed().await.expect("read"), Some(list(now, 2)));
    let compared = async |began, counts| schedule.note_compared(began, counts, now).await.expect("asked");
    assert_eq!(compared(now.minus(minute), true).await, Write::Applied);
    assert_eq!(compared(now, false).await, Write::Applied);
    assert_eq!(compared(now.minus(minute), true).await, Write::Rejected(()));
    let expected = ComparedLists { last: Some(now), last_that_counts_missing: Some(now.minus(minute)) };
    assert_eq!(schedule.compared().await.expect("read"), expected);
}

#[tokio::test]
async fn slots_are_given_once() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (second, latest) = (Duration::from_secs(1), now.plus(Duration::from_secs(5)));
    let take =
        async |count| store.rate_slots.take(Pace::Plan, count, second, now, latest).await.expect("asked");
    assert_eq!(take(4).await, Some(now));
    assert_eq!(take(2).await, Some(now.plus(second * 4)));
    assert_eq!(take(1).await, None, "that would be too late");
    let just_so =
        store.rate_slots.take(Pace::Plan, 1, second, now, now.plus(second * 6)).await.expect("asked");
    assert_eq!(just_so, Some(now.plus(second * 6)), "the latest that will do");
    assert_eq!(
        store.rate_slots.hold(Pace::Plan, latest, now).await.expect("asked"),
        Write::Rejected(()),
        "later already"
    );
    // The calls have slots of their own, however far ahead the plan is.
    let call = async || store.rate_slots.take(Pace::Calls, 1, second, now, latest).await.expect("asked");
    assert_eq!((call().await, call().await), (Some(now), Some(now.plus(second))));
    assert_eq!(store.rate_slots.hold(Pace::Calls, latest, now).await.expect("asked"), Write::Applied);
    assert_eq!((call().await, call().await), (Some(latest), None), "the provider wants to be left alone");
}

#[tokio::test]
async fn a_minute_of_the_history_is_counted_by_the_latest_census_and_each_api_adds_to_it_once() {
    let place = Place::with_table().await;
    let store = &place.store;
    let minute = minute_of(place.clock.now());
    let counted =
        |letters| MinuteGauges { letters, workers: 2, oldest_ms: Some(7), ..MinuteGauges::default() };
    let at = |seconds| minute.plus(Duration::from_secs(seconds));
    for (seconds, letters, expected) in
        [(10, 1, Write::Applied), (5, 9, Write::Rejected(())), (20, 2, Write::Applied)]
    {
        assert_eq!(store.history.count(&counted(letters), at(seconds)).await.expect("asked"), expected);
    }
    let mut served = Served { created: 3, refused: 1, ..Served::default() };
    served.latency[2] = 3;
    let [one, other] = [place.entropy.uuid(), place.entropy.uuid()];
    let apis = [one, other, one];
    for (api, expected) in apis.into_iter().zip([Write::Applied, Write::Applied, Write::Rejected(())]) {
        assert_eq!(store.history.serve(&served, api, at(30)).await.expect("asked"), expected);
    }
    let told = store.history.since(minute).await.expect("read");
    let [only] = told.as_slice() else { panic!("{told:?}") };
    let kept = only.counted.as_ref().expect("counted");
    assert_eq!((only.at, kept.letters, kept.workers, kept.oldest_ms), (minute, 2, 2, Some(7)));
    assert_eq!((only.served.created, only.served.refused, only.served.latency[2]), (6, 2, 6));
    assert!(store.history.since(at(60)).await.expect("read").is_empty());
}

#[tokio::test]
async fn a_slot_or_a_tick_far_ahead_that_a_wrong_clock_wrote_stops_nobody() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (second, wrong) = (Duration::from_secs(1), now.plus(Duration::from_secs(86_400)));
    let (slots, latest) = (&store.rate_slots, now.plus(second * 60));
    for pace in [Pace::Plan, Pace::Calls] {
        let ahead = slots.take(pace, 1, second, wrong, wrong).await.expect("asked");
        assert_eq!(ahead, Some(wrong));
        let taken = slots.take(pace, 1, second, now, latest).await.expect("asked");
        assert_eq!(taken, Some(now), "{pace:?}");
        // An hour is the longest for which a provider holds slots.
        let held = now.plus(second * 3_600);
        assert_eq!(slots.hold(pace, held, now).await.expect("asked"), Write::Applied);
        assert_eq!(slots.take(pace, 1, second, now, latest).await.expect("asked"), None, "{pace:?}");
        let ahead = slots.take(pace, 1, second, wrong, wrong).await.expect("asked");
        assert_eq!(ahead, Some(wrong));
        assert_eq!(slots.hold(pace, held, now).await.expect("asked"), Write::Applied, "{pace:?}");
        assert_eq!(slots.take(pace, 1, second, now, latest).await.expect("asked"), None, "{pace:?}");
    }

    let tick = store.schedule.tick(Job::Sync, Duration::ZERO, now).await.expect("read");
    let take = async |until| store.schedule.take(Job::Sync, &tick, until, now).await.expect("asked");
    assert_eq!(take(wrong).await, Write::Applied);
    let mine = now.plus(second * 60);
    assert_eq!(take(mine).await, Write::Applied, "longer than anybody takes it");
    assert_eq!(take(mine).await, Write::Rejected(()));
}

#[tokio::test]
async fn the_latest_census_and_the_living_are_kept() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let class = ReservationId::from_uuid(place.entropy.uuid());
    let census = |as_of| Census {
        by_flavour: BTreeMap::from([("small".to_owned(), BTreeMap::from([(Status::Available, 3)]))]),
        by_status: Status::ALL.map(|status| (status, 3)).into(),
        by_cause: BTreeMap::from([(QuarantineCause::Gate, 2), (QuarantineCause::Operator, 1)]),
        by_reservation: BTreeMap::from([(class, ReservedCount { reserved: 2, allocated: 1 })]),
        letters: DeadLetterCount::default(),
        as_of,
    };
    let later = now.plus(Duration::from_millis(1));
    for (as_of, expected) in [
        (now, Write::Applied),
        (later, Write::Applied),
        (now, Write::Rejected(())),
        (later, Write::Rejected(())),
    ] {
        assert_eq!(store.census.record(&census(as_of), now).await.expect("asked"), expected);
    }
    assert_eq!(store.census.get().await.expect("read"), Some(census(later)));
    assert_eq!(store.census.believed(now).await.expect("read"), Some(census(later)));
    let wrong = now.plus(Duration::from_secs(86_400));
    assert_eq!(store.census.record(&census(wrong), now).await.expect("asked"), Write::Applied);
    assert_eq!(store.census.believed(now).await.expect("read"), None, "a clock began it that was wrong");
    assert_eq!(store.census.record(&census(now), now).await.expect("asked"), Write::Applied);
    assert_eq!(store.census.believed(now).await.expect("read"), Some(census(now)));

    let mut ids = [place.entropy.uuid(), place.entropy.uuid()];
    ids.sort();
    for id in ids {
        store.instances.heartbeat(&Instance::new(id, Role::Worker, now)).await.expect("said");
    }
    store.instances.heartbeat(&Instance::new(ids[0], Role::Worker, later)).await.expect("said");
    store.instances.heartbeat(&Instance::new(ids[0], Role::Worker, now)).await.expect("too late");
    let living = store.instances.list().await.expect("listed");
    assert_eq!(living.iter().map(|instance| instance.id).collect::<Vec<_>>(), ids);
    let wrong = now.plus(Duration::from_secs(86_400));
    for at in [wrong, later] {
        store.instances.heartbeat(&Instance::new(ids[0], Role::Worker, at)).await.expect("said");
    }
    let beats = async || store.instances.list().await.expect("listed")[0].heartbeat;
    assert_eq!(beats().await, later, "a clock that was wrong once does not keep it from saying more");
    let stale = Instance::new(ids[0], Role::Worker, now);
    assert_eq!(store.instances.remove(&stale).await.expect("asked"), Write::Rejected(()));
    assert_eq!(store.instances.remove(&living[0]).await.expect("asked"), Write::Applied);
    assert_eq!(store.instances.list().await.expect("listed").len(), 1);
}

#[tokio::test]
async fn the_first_report_of_a_run_stays() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let id = place.entropy.request_id(now);
    let report = |changed| JobReport { changed, ..JobReport::new(&Task::Census) };
    let unasked = store.runs.complete(id, &report(1), true, now).await.expect("asked");
    assert_eq!(unasked, Write::Rejected(()), "nobody asked for it");
    store.runs.record(id, "census", now).await.expect("recorded");
    for (changed, expected) in [(1, Write::Applied), (2, Write::Rejected(()))] {
        let told = store.runs.complete(id, &report(changed), true, now).await.expect("asked");
        assert_eq!(told, expected);
    }
    let run = store.runs.get(id).await.expect("read").expect("there");
    assert_eq!(run.report, Some(report(1)));
    store.runs.record(id, "census", now).await.expect("recorded before");
    assert_eq!(store.runs.get(id).await.expect("read"), Some(run), "asking again takes no report away");

    // A scheduled run is reported, whether or not it has a record.
    let (unasked, asked) = (place.entropy.request_id(now), place.entropy.request_id(now));
    store.runs.record(asked, "census", now).await.expect("recorded");
    for id in [unasked, asked] {
        for (changed, expected) in [(1, Write::Applied), (2, Write::Rejected(()))] {
            let told = store.runs.complete(id, &report(changed), false, now).await.expect("asked");
            assert_eq!(told, expected);
        }
    }
}

#[tokio::test]
async fn a_pool_is_bound_to_its_table_and_a_copy_is_known_as_one() {
    let place = Place::with_table().await;
    // DynamoDB Local gives its tables no id.
    if place.differs(false, true) {
        return;
    }
    let (store, now) = (&place.store, place.clock.now());
    assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Open);
    assert_eq!(store.pool.pause("a test", now).await.expect("asked"), Write::Applied);
    let repeated = store.pool.pause("a test", now).await.expect("asked");
    assert_eq!(repeated, Write::Applied, "its answer was lost");
    let again = store.pool.pause("another", now.plus(Duration::from_secs(60))).await.expect("asked");
    assert_eq!(
        again,
        Write::Rejected(Pause::new("a test", now.floor_to_second())),
        "who and when are of the first"
    );
    let since = now.floor_to_second();
    assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Paused { since }, "since the first");
    assert_eq!(store.pool.resume().await.expect("asked"), Write::Applied);
    let begin = async || store.pool.begin_reconciling(now).await.expect("asked");
    assert_eq!(begin().await, Write::Rejected(()), "it was resumed");
    assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Open);

    // As it is restored under another name; then under the same one, whose incarnations have ids of their own.
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let restored = async |name: &str, id: Option<&str>| {
        let put = place.aws.dynamodb.put_item().table_name(&place.table).item("table_name", text(name));
        let put = put.item("PK", text("POOL")).item("SK", text("META"));
        let put = id.into_iter().fold(put, |put, id| put.item("table_id", text(id)));
        put.send().await.expect("PutItem");
        Binding { table: name.to_owned(), table_id: id.map(str::to_owned) }
    };
    for (name, id) in [("before", None), ("before", Some("id")), (place.table.as_str(), Some("id"))] {
        let of = restored(name, id).await;
        let copy = PoolStatus::RestoredCopy { of: of.clone() };
        assert_eq!(store.pool.status().await.expect("read"), copy, "{name} {id:?}");
        assert_eq!(store.pool.resume().await.expect("asked"), Write::Rejected(()));
        assert_eq!(begin().await, Write::Applied, "{name} {id:?}");
        for expected in [Write::Applied, Write::Rejected(())] {
            assert_eq!(store.pool.bind_copy(&of).await.expect("asked"), expected, "{name} {id:?}");
        }
        assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Open);
    }

    // An older program bound it by its name alone; the first process that looks binds the rest.
    restored(&place.table, None).await;
    assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Open);
    let get = place.aws.dynamodb.get_item().table_name(&place.table);
    let get = get.key("PK", text("POOL")).key("SK", text("META")).send().await.expect("GetItem");
    let bound = get.item.expect("there");
    assert!(bound.contains_key("table_id"), "{bound:?}");

    // What is being reconciled stays closed, whatever became of the process that began it.
    store.pool.pause("a test", now).await.expect("paused");
    assert_eq!((begin().await, begin().await), (Write::Applied, Write::Applied));
    let PoolStatus::RestoredCopy { of } = store.pool.status().await.expect("read") else {
        panic!("it is in doubt");
    };
    assert_eq!(store.pool.resume().await.expect("asked"), Write::Rejected(()));
    assert_eq!(store.pool.bind_copy(&of).await.expect("asked"), Write::Applied);
    assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Paused { since }, "the pause stays");
    assert_eq!(store.pool.resume().await.expect("asked"), Write::Applied);
    alter(&place, "POOL", "reconciling_since", AttributeValue::N("7".to_owned())).await;
    assert_eq!(begin().await, Write::Applied, "the next run goes on with it");
}
