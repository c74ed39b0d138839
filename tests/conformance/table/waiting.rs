//! Lines and places: parked once, in order, and granted together or not at all.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::waiting::{Line, Marks, Place as Waiting};
use broker_domain::{
    AllocateRequest, Job, LabDuration, NamePrefix, Outcome, Reason, RequestState, Status, TenantName,
    Timestamp,
};
use broker_store::reconcile::{ReconcileOptions, reconcile};
use broker_store::waiting::{self, WaitingFilter};
use broker_store::{Actor, Claim, ClaimOutcome, PlaceItem, PoolStatus, Requeued, Write};

use super::claims::record;
use super::reading::spoil;
use crate::place::Place;

fn line() -> Line {
    Line { tenant: TenantName::new("acme").expect("a tenant"), prefix: None }
}

/// A recorded request of `track` that may wait, and its place.
async fn asked(place: &Place, track: &str) -> (AllocateRequest, Waiting) {
    asked_until(place, track, place.ask(track).times.deadline).await
}

/// The same with a deadline.
async fn asked_until(place: &Place, track: &str, deadline: Timestamp) -> (AllocateRequest, Waiting) {
    let mut ask = AllocateRequest { may_wait: true, tenant: Some(line().tenant), ..place.ask(track) };
    ask.times.deadline = deadline;
    place.store.requests.record(&record(&ask)).await.expect("recorded");
    let (request_id, deadline) = (ask.request_id, ask.times.deadline);
    (ask, Waiting { line: line(), request_id, deadline, message: "a message".to_owned() })
}

/// When an item expires.
async fn ttl(place: &Place, pk: String, sk: &str) -> u64 {
    let get = place.aws.dynamodb.get_item().table_name(&place.table).consistent_read(true);
    let get = get.key("PK", AttributeValue::S(pk)).key("SK", AttributeValue::S(sk.to_owned()));
    let item = get.send().await.expect("GetItem").item.expect("there");
    item["ttl"].as_n().expect("a number").parse().expect("seconds")
}

#[tokio::test]
async fn a_line_is_listed_until_the_latest_deadline_and_keeps_what_a_walk_found() {
    let place = Place::with_table().await;
    let (waiting, now) = (&place.store.waiting, place.clock.now());
    let hour = Duration::from_secs(3_600);
    let marks = Marks::of([place.entropy.request_id(now)]);
    waiting.walked(&line(), &marks, now, now).await.expect("asked");
    assert_eq!(waiting.lines(now).await.expect("read"), [], "a walk lists nothing");
    for until in [now.plus(hour), now.plus(hour * 2), now.plus(hour)] {
        waiting.list_line(&line(), until).await.expect("listed");
    }
    waiting.walked(&line(), &marks, now, now).await.expect("kept");
    let listed = waiting.lines(now).await.expect("read");
    assert_eq!((listed[0].line.clone(), listed[0].until), (line(), now.plus(hour * 2)));
    assert_eq!((&listed[0].marks, listed[0].as_of), (&marks, Some(now)));
    waiting.walked(&line(), &Marks::default(), now, now).await.expect("asked");
    assert_eq!(
        waiting.lines(now).await.expect("read"),
        listed,
        "a walk that began no later tells nothing new"
    );
    let wrong = now.plus(hour);
    waiting.walked(&line(), &Marks::default(), wrong, wrong).await.expect("by a clock that was wrong");
    waiting.walked(&line(), &marks, now, now).await.expect("kept");
    assert_eq!(waiting.lines(now).await.expect("read"), listed, "which nothing waits for");
    assert_eq!(waiting.lines(now.plus(hour * 3)).await.expect("read"), []);
    // A walk comes later than that, if the pool was paused meanwhile, and goes on until it has found nobody.
    let walked = waiting.lines_to_walk().await.expect("read");
    assert_eq!(walked, listed);
    waiting.list_line(&line(), now.plus(hour * 4)).await.expect("listed");
    let forgotten = waiting.forget_line(&walked[0]).await.expect("asked");
    assert_eq!(forgotten, Write::Rejected(()), "it was listed for longer since");
    let walked = waiting.lines_to_walk().await.expect("read");
    assert_eq!(waiting.forget_line(&walked[0]).await.expect("asked"), Write::Applied);
    assert_eq!(waiting.lines_to_walk().await.expect("read"), []);
    waiting.list_line(&line(), now.plus(hour)).await.expect("listed");
    let other = Line { tenant: TenantName::new("acme2").expect("a tenant"), prefix: None };
    waiting.list_line(&other, now.plus(hour)).await.expect("listed");
    let own = waiting.lines_of(&line().tenant, now).await.expect("read");
    assert_eq!(own.into_iter().map(|listed| listed.line).collect::<Vec<_>>(), [line()]);
}

#[tokio::test]
async fn a_place_and_its_line_are_kept_as_long_as_the_record_of_its_request() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (ask, waiting) = asked(&place, "student-1").await;
    let until = Line::listed_until(waiting.deadline);
    store.waiting.list_line(&line(), until).await.expect("listed");
    let seen = store.waiting.tenant_lines(&line().tenant, now).await.expect("read");
    let other = Line { prefix: Some(NamePrefix::new("a-").expect("a prefix")), ..line() };
    assert_eq!(store.waiting.list_new_line(&other, until, &seen).await.expect("asked"), Write::Applied);
    assert_eq!(store.waiting.park(&waiting).await.expect("asked"), Write::Applied);
    let of_record = ttl(&place, format!("REQ#{}", ask.request_id), "META").await;
    let others = [
        ttl(&place, format!("LINE#{}", line()), &ask.request_id.to_string()).await,
        ttl(&place, "LINES".to_owned(), &line().to_string()).await,
        ttl(&place, "LINES".to_owned(), &other.to_string()).await,
    ];
    assert!(others.iter().all(|ttl| *ttl >= of_record), "{others:?}, the record {of_record}");
}

#[tokio::test]
async fn a_replay_keeps_the_record_for_as_much_longer_as_it_gives_it_time() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (ask, waiting) = asked(&place, "student-1").await;
    assert_eq!(store.waiting.park(&waiting).await.expect("asked"), Write::Applied);
    let record = async || ttl(&place, format!("REQ#{}", ask.request_id), "META").await;
    let before = record().await;
    let why = (Reason::Malformed, "why".to_owned());
    let letter = broker_dead_letters::of_place("m", waiting.message.clone(), why, now, now);
    assert_eq!(store.waiting.bury(&PlaceItem::from(&waiting), &letter).await.expect("asked"), Write::Applied);
    let day = Duration::from_secs(86_400);
    let deadline = waiting.deadline.plus(day);
    let reopened = Requeued::Request { id: ask.request_id, message: waiting.message, deadline };
    let actor = Actor { action: place.entropy.uuid(), by: "op".to_owned(), at: now };
    let taken = store.dead_letters.take(&letter.id, &actor, now, Some(&reopened)).await.expect("asked");
    assert_eq!((taken, record().await), (Write::Applied, before + day.as_secs()));
}

#[tokio::test]
async fn a_new_line_is_listed_only_beside_the_lines_that_were_counted() {
    let place = Place::with_table().await;
    let (waiting, now) = (&place.store.waiting, place.clock.now());
    let until = now.plus(Duration::from_secs(3_600));
    let of = |prefix: &str| Line { prefix: Some(NamePrefix::new(prefix).expect("a prefix")), ..line() };
    let none = waiting.tenant_lines(&line().tenant, now).await.expect("read");
    assert_eq!(none.lines, []);
    let list = async |line: &Line, seen| waiting.list_new_line(line, until, seen).await.expect("asked");
    assert_eq!(list(&of("a-"), &none).await, Write::Applied);
    assert_eq!(list(&of("b-"), &none).await, Write::Rejected(()), "another was listed since");
    let one = waiting.tenant_lines(&line().tenant, now).await.expect("read");
    assert_eq!(one.lines.iter().map(|listed| listed.line.clone()).collect::<Vec<_>>(), [of("a-")]);
    assert_eq!(list(&of("a-"), &one).await, Write::Rejected(()), "it is listed for as long");
    assert_eq!(list(&of("b-"), &one).await, Write::Applied);
    assert_eq!(list(&of("c-"), &one).await, Write::Rejected(()));
    let other = Line { tenant: TenantName::new("acme2").expect("a tenant"), prefix: None };
    let theirs = waiting.tenant_lines(&other.tenant, now).await.expect("read");
    assert_eq!((theirs.lines.clone(), list(&other, &theirs).await), (vec![], Write::Applied));
}

#[tokio::test]
async fn a_request_is_parked_once_however_often_and_never_after_its_end() {
    let place = Place::with_table().await;
    let (store, free) = (&place.store, place.seed(1).await.remove(0));
    let (ask, first) = asked(&place, "student-1").await;
    let (other, second) = asked(&place, "student-2").await;
    for _ in 0..2 {
        assert_eq!(store.waiting.park(&first).await.expect("asked"), Write::Applied);
    }
    // A copy of its message from before a replay gave it more time.
    let older = Waiting {
        deadline: first.deadline.minus(Duration::from_millis(1)),
        message: "an older message".to_owned(),
        ..first.clone()
    };
    assert_eq!(store.waiting.park(&older).await.expect("asked"), Write::Rejected(()));
    let stands = store.requests.get(ask.request_id).await.expect("read").expect("recorded");
    assert_eq!((stands.state, stands.parked, stands.message), (RequestState::Queued, Some(line()), None));
    store.requests.cancel(other.request_id).await.expect("cancelled");
    assert_eq!(store.waiting.park(&second).await.expect("asked"), Write::Rejected(()));
    let places = store.waiting.places(&line(), None, 10).await.expect("read").items.places;
    assert_eq!(places, std::slice::from_ref(&first));
    // A second delivery does not go past the line; the line does.
    assert_eq!(place.claim(&ask, &free).await, ClaimOutcome::RequestEnded);
    let allocation_id = place.entropy.allocation_id();
    let claim = Claim {
        request: &ask,
        candidate: &free,
        allocation_id,
        now: place.clock.now(),
        listed: Status::Available,
        from_line: true,
        permit: None,
    };
    let granted = store.leases.grant(&[claim]).await.expect("asked");
    assert!(matches!(granted[..], [Some(ClaimOutcome::Created(_))]), "{granted:?}");
    let ended = store.requests.get(ask.request_id).await.expect("read").expect("recorded");
    assert!(matches!(ended.state, RequestState::Ended(Outcome::Created(_))), "{ended:?}");
    for _ in 0..2 {
        store.waiting.leave(&line(), first.request_id).await.expect("deleted");
    }
    assert_eq!(store.waiting.place(&line(), first.request_id).await.expect("read"), None);
}

#[tokio::test]
async fn grants_are_all_or_none_and_say_whose_was_in_the_way() {
    let place = Place::with_table().await;
    let (store, free) = (&place.store, place.seed(3).await);
    let mut asks = Vec::new();
    for track in ["student-1", "student-2", "student-3"] {
        let (ask, waiting) = asked(&place, track).await;
        assert_eq!(store.waiting.park(&waiting).await.expect("asked"), Write::Applied);
        asks.push(ask);
    }
    store.requests.cancel(asks[1].request_id).await.expect("cancelled");
    let claims: Vec<_> = asks
        .iter()
        .zip(&free)
        .map(|(request, candidate)| Claim {
            request,
            candidate,
            allocation_id: place.entropy.allocation_id(),
            now: place.clock.now(),
            listed: Status::Available,
            from_line: true,
            permit: None,
        })
        .collect();
    let told = store.leases.grant(&claims).await.expect("asked");
    assert_eq!(told, [None, Some(ClaimOutcome::RequestEnded), None]);
    let told = store.leases.grant(&[claims[0].clone(), claims[2].clone()]).await.expect("asked");
    assert!(told.iter().all(|told| matches!(told, Some(ClaimOutcome::Created(_)))), "{told:?}");
}

#[tokio::test]
async fn a_place_is_buried_with_its_request_or_not_at_all_and_a_replay_parks_it_anew() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let (ask, waiting) = asked(&place, "student-1").await;
    let why = || (Reason::Malformed, "why".to_owned());
    let letter_of = |id: &str| broker_dead_letters::of_place(id, waiting.message.clone(), why(), now, now);
    let read = PlaceItem::from(&waiting);
    let bury = async |item: &PlaceItem, id: &str| {
        let letter = letter_of(id);
        let told = store.waiting.bury(item, &letter).await.expect("asked");
        let kept = store.dead_letters.get(&letter.id).await.expect("read").is_some();
        assert_eq!(kept, told.is_applied(), "{id}");
        told
    };
    assert_eq!(bury(&read, "no-place").await, Write::Rejected(()));
    store.waiting.park(&waiting).await.expect("parked");
    let other = PlaceItem { message: Some("another message".to_owned()), ..read.clone() };
    assert_eq!(bury(&other, "not-as-read").await, Write::Rejected(()));
    assert_eq!(bury(&read, "first").await, Write::Applied);
    assert_eq!(store.waiting.place(&line(), ask.request_id).await.expect("read"), None);
    let state = async || store.requests.get(ask.request_id).await.expect("read").expect("recorded");
    let died = state().await;
    assert!(matches!(died.state, RequestState::Ended(Outcome::DeadLettered { .. })), "{died:?}");
    assert_eq!(bury(&read, "twice").await, Write::Rejected(()));

    let letter = letter_of("first");
    let actor = Actor { action: place.entropy.uuid(), by: "op".to_owned(), at: now };
    let message = waiting.message.clone();
    let reopened = Requeued::Request { id: ask.request_id, message, deadline: waiting.deadline };
    let taken = store.dead_letters.take(&letter.id, &actor, now, Some(&reopened)).await.expect("asked");
    assert_eq!((taken, state().await.parked), (Write::Applied, None));
    assert_eq!(store.waiting.park(&waiting).await.expect("asked"), Write::Applied);
    // Taken once more, since its mark was lost: it stands in its line, and stays there.
    let later = Actor { at: now.plus(Duration::from_secs(60)), ..actor };
    let taken = store.dead_letters.take(&letter.id, &later, later.at, Some(&reopened)).await;
    assert_eq!(taken.expect("asked"), Write::Applied);
    let stands = state().await;
    assert_eq!((stands.state, stands.parked, stands.message), (RequestState::Queued, Some(line()), None));
    // Cancelled meanwhile: its place is garbage, and no letter tells of it.
    store.requests.cancel(ask.request_id).await.expect("cancelled");
    assert_eq!(bury(&read, "ended").await, Write::Rejected(()));
    let leave = async |item: &PlaceItem| store.waiting.leave_as_read(item).await.expect("asked");
    assert_eq!(leave(&other).await, Write::Rejected(()), "it is not the one that was read");
    assert_eq!(leave(&read).await, Write::Applied);
    assert_eq!(store.waiting.place(&line(), ask.request_id).await.expect("read"), None);
    let (next, without) = asked(&place, "student-2").await;
    store.waiting.park(&without).await.expect("parked");
    let without = PlaceItem { message: None, ..PlaceItem::from(&without) };
    assert_eq!((leave(&without).await, leave(&without).await), (Write::Applied, Write::Rejected(())));
    assert_eq!(store.waiting.place(&line(), next.request_id).await.expect("read"), None);
}

#[tokio::test]
async fn a_place_that_cannot_be_read_hides_no_other() {
    let place = Place::with_table().await;
    let store = &place.store;
    for track in ["student-1", "student-2"] {
        let (_, waiting) = asked(&place, track).await;
        store.waiting.park(&waiting).await.expect("parked");
    }
    let rows = store.waiting.places(&line(), None, 10).await.expect("read").items;
    let damaged = &rows.places[0];
    let update = place.aws.dynamodb.update_item().table_name(&place.table);
    let key = AttributeValue::S;
    let update = update.key("PK", key(format!("LINE#{}", line())));
    let update =
        update.key("SK", key(damaged.request_id.to_string())).update_expression("REMOVE deadline_ms");
    update.send().await.expect("UpdateItem");
    let again = store.waiting.places(&line(), None, 10).await.expect("read").items;
    assert_eq!(again.places, rows.places[1..]);
    assert_eq!(again.unreadable[0].request_id(), Some(damaged.request_id));
    let why = (Reason::MalformedItem, again.unreadable[0].why.clone());
    let now = place.clock.now();
    let letter = broker_dead_letters::of_place("m", damaged.message.clone(), why, now, now);
    assert_eq!(store.waiting.bury(&again.unreadable[0], &letter).await.expect("asked"), Write::Applied);
    let left = store.waiting.places(&line(), None, 10).await.expect("read").items;
    assert_eq!((left.places.as_slice(), left.unreadable.len()), (&rows.places[1..], 0));
}

/// How many races: ten thousand with `CONFORMANCE_RACES=10000`.
#[expect(clippy::disallowed_methods, reason = "whoever has a minute asks for more")]
pub(super) fn races() -> usize {
    std::env::var("CONFORMANCE_RACES").ok().and_then(|many| many.parse().ok()).unwrap_or(300)
}

#[tokio::test]
async fn a_cancellation_and_a_grant_at_the_same_instant_have_one_winner_each_time() {
    let place = Place::with_table().await;
    let store = &place.store;
    let (mut granted, many) = (0, races());
    let mut free = place.seed(many).await;
    for race in 0..many {
        let (ask, waiting) = asked(&place, &format!("student-{race}")).await;
        store.waiting.park(&waiting).await.expect("parked");
        let candidate = free.pop().expect("as many as races");
        let claim = Claim {
            request: &ask,
            candidate: &candidate,
            allocation_id: place.entropy.allocation_id(),
            now: place.clock.now(),
            listed: Status::Available,
            from_line: true,
            permit: None,
        };
        let claims = [claim];
        let (cancel, grant) = (store.requests.cancel(ask.request_id), store.leases.grant(&claims));
        let (cancelled, outcome) = if race % 2 == 0 {
            tokio::join!(cancel, grant)
        } else {
            let (outcome, cancelled) = tokio::join!(grant, cancel);
            (cancelled, outcome)
        };
        let cancelled = cancelled.expect("asked").is_applied();
        let is_granted = matches!(outcome.expect("asked")[..], [Some(ClaimOutcome::Created(_))]);
        assert_ne!(cancelled, is_granted, "race {race}");
        let ended = store.requests.get(ask.request_id).await.expect("read").expect("recorded").state;
        let expected = if is_granted { "succeeded" } else { "cancelled" };
        assert_eq!(ended.as_str(), expected, "race {race}");
        assert_eq!(
            store.leases.get(&ask.lease_key).await.expect("read").is_some(),
            is_granted,
            "race {race}"
        );
        granted += usize::from(is_granted);
    }
    println!("{granted} of {many} races were won by the grant");
}

#[tokio::test]
async fn ten_minutes_without_the_network_lose_no_place() {
    let place = Place::with_table().await;
    let (_, waiting) = asked(&place, "student-1").await;
    let store = &place.store;
    store.waiting.list_line(&line(), Line::listed_until(waiting.deadline)).await.expect("listed");
    store.waiting.park(&waiting).await.expect("parked");
    // Also if its deadline comes in that time: then it is found, and told that it is over.
    let minutes = Duration::from_secs(60);
    for later in [place.clock.now().plus(minutes * 10), waiting.deadline.plus(minutes * 9)] {
        let listed = store.waiting.lines(later).await.expect("read");
        assert_eq!(listed.len(), 1, "listed at {later:?}");
        let rows = store.waiting.places(&listed[0].line, None, 10).await.expect("read").items;
        assert_eq!(rows.places, std::slice::from_ref(&waiting));
    }
}

#[tokio::test]
async fn a_table_in_which_somebody_waited_opens_once_it_is_reconciled() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    let long_ago = now.minus(Duration::from_secs(3_600));
    let (_, overdue) = asked_until(&place, "student-1", long_ago).await;
    let (lost, placeless) = asked(&place, "student-2").await;
    store.waiting.list_line(&line(), Line::listed_until(long_ago)).await.expect("listed");
    for parked in [&overdue, &placeless] {
        assert_eq!(store.waiting.park(parked).await.expect("asked"), Write::Applied);
    }
    // As where the moment of the restore cuts the parking in half.
    store.waiting.leave(&line(), lost.request_id).await.expect("asked");
    assert_eq!(store.pool.pause("op", now).await.expect("asked"), Write::Applied);
    let options =
        ReconcileOptions { apply: true, accept_fewer: false, lab_duration: LabDuration::nearest(4) };
    let report = reconcile(store, &place.clock, &place.entropy, Vec::new(), None, options).await;
    assert_eq!(report.expect("reconciled").suspects, Vec::<String>::new());
    assert_eq!(store.pool.resume().await.expect("asked"), Write::Applied);
    assert_eq!(store.pool.status().await.expect("read"), PoolStatus::Open);

    // Its line is not listed any more, and its place stands.
    let listed = waiting::list(store, &WaitingFilter::default(), |_| None, None, (9, 9)).await;
    assert_eq!(listed.expect("read").places, [overdue]);
    let runs = waiting::keeps_running(store, Job::Serve, false).await.expect("read");
    assert!(runs.is_some_and(|why| why.contains("a line is listed")), "{runs:?}");
    // Who has no place any more is told so by an operator.
    let found = waiting::find(store, lost.request_id).await.expect("read").expect("it waits");
    assert!(waiting::cancel(store, &place.entropy, &found).await.expect("asked"));
    let ended = store.requests.get(lost.request_id).await.expect("read").expect("recorded");
    assert_eq!(ended.state, RequestState::Ended(Outcome::Cancelled));
    assert_eq!(waiting::find(store, lost.request_id).await.expect("read"), None, "it has ended");
    // Nor does a place that cannot be read stand in the way of that.
    let (unreadable, parked) = asked(&place, "student-3").await;
    assert_eq!(store.waiting.park(&parked).await.expect("asked"), Write::Applied);
    spoil(&place, (&format!("LINE#{}", line()), &unreadable.request_id.to_string()), "deadline_ms").await;
    let found = waiting::find(store, unreadable.request_id).await.expect("read").expect("it waits");
    assert!(waiting::cancel(store, &place.entropy, &found).await.expect("asked"));
}
