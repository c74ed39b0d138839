//! Reservations: what is put aside and goes back is counted in the same transaction, at the versions that were read of both.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{
    NamePrefix, Quarantine, QuarantineCause, Reservation, ReservationEnd, ReservationId, ReservationTerms,
    SandboxId, Status, TenantName, Timestamp,
};
use broker_store::reservations::{self, ReservationWrite};
use broker_store::{
    Candidate, CandidateFilter, Claim, ClaimOutcome, NewSandbox, PUT_ASIDE_TOGETHER, Pages, PutAside, Seen,
    StoreError, Write,
};
use broker_tests::together;

use crate::place::{Place, candidate, sandbox};

const HOUR: Duration = Duration::from_secs(3_600);

/// So many from now on, for two hours.
fn terms(place: &Place, count: u32) -> ReservationTerms {
    let now = place.clock.now();
    ReservationTerms {
        tenant: TenantName::new("acme").expect("a tenant"),
        prefix: NamePrefix::new("name-").expect("a prefix"),
        count,
        from: Some(now),
        until: Some(now.plus(HOUR * 2)),
        lead: Duration::ZERO,
        no_show: Some(HOUR),
    }
}

/// A reservation that nothing is put aside for yet.
pub(super) async fn made(place: &Place, count: u32) -> Reservation {
    let id = ReservationId::from_uuid(place.entropy.uuid());
    let (terms, now) = (terms(place, count), place.clock.now());
    let told = reservations::create(&place.store, &Policy::default(), (id, &terms), "ops", now).await;
    let Ok(ReservationWrite::Stands(made)) = told else { panic!("{told:?}") };
    *made
}

pub(super) async fn stands(place: &Place, id: ReservationId) -> Reservation {
    place.store.reservations.get(id).await.expect("read").expect("there")
}

/// One call that puts aside what was available.
async fn put_aside(place: &Place, reservation: &Reservation, free: &[Candidate]) -> PutAside {
    let some: Vec<_> = free.iter().cloned().map(|free| (free, Status::Available)).collect();
    place.store.reservations.put_aside(reservation, &some, place.clock.now()).await.expect("asked")
}

/// The same, which must be done; the reservation and the sandboxes as they are now.
pub(super) async fn done(
    place: &Place,
    reservation: &Reservation,
    free: &[Candidate],
) -> (Reservation, Vec<Candidate>) {
    let PutAside::Done(after) = put_aside(place, reservation, free).await else { panic!("not done") };
    (*after, free.iter().map(next).collect())
}

pub(super) fn next(candidate: &Candidate) -> Candidate {
    Candidate { version: candidate.version + 1, ..candidate.clone() }
}

fn older(candidate: &Candidate) -> Candidate {
    Candidate { version: candidate.version - 1, ..candidate.clone() }
}

/// What the index lists, by id.
async fn listed(place: &Place, filter: &CandidateFilter) -> Vec<Candidate> {
    let mut pages = Pages::new(|after| place.store.sandboxes.sweep_candidates(filter, after, 100));
    let mut all = Vec::new();
    while let Some(page) = pages.next().await.expect("listed") {
        all.extend(page);
    }
    all.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    all
}

pub(super) async fn reserved(place: &Place, id: ReservationId) -> Vec<Candidate> {
    listed(place, &CandidateFilter::reserved(id, None)).await
}

pub(super) async fn status(place: &Place, sandbox: &SandboxId) -> (Status, u64, Option<ReservationId>) {
    let record = place.store.sandboxes.record(sandbox).await.expect("read").expect("there");
    (record.sandbox.status, record.sandbox.version, record.reserved_for)
}

pub(super) async fn claims(place: &Place, track: &str, candidate: &Candidate, from: Status) -> ClaimOutcome {
    let ask = place.ask(track);
    let claim = Claim {
        request: &ask,
        candidate,
        allocation_id: place.entropy.allocation_id(),
        now: place.clock.now(),
        listed: from,
        from_line: false,
        permit: None,
    };
    place.store.leases.claim(&claim).await.expect("the table answers")
}

#[tokio::test]
async fn what_is_put_aside_is_counted_and_listed_for_its_reservation_alone() {
    let place = Place::with_table().await;
    let free = place.seed(3).await;
    let (first, second) = (made(&place, 2).await, made(&place, 2).await);
    let (after, aside) = done(&place, &first, &free[..2]).await;
    assert_eq!((after.held, after.version), (2, first.version + 1));
    assert_eq!(stands(&place, first.id).await.held, 2);
    assert_eq!(reserved(&place, first.id).await, aside);
    assert_eq!(reserved(&place, second.id).await, []);
    assert_eq!(listed(&place, &CandidateFilter::available(None)).await, free[2..]);
    for sandbox in &aside {
        let expected = (Status::Reserved, sandbox.version, Some(first.id));
        assert_eq!(status(&place, &sandbox.sandbox_id).await, expected);
    }
    let counted = place.store.sandboxes.count(&Policy::default()).await.expect("counted");
    assert_eq!(counted.by_status().get(&Status::Reserved), Some(&2));
}

#[tokio::test]
async fn nothing_is_put_aside_unless_the_reservation_and_each_sandbox_are_as_they_were_read() {
    let place = Place::with_table().await;
    let free = place.seed(4).await;
    let reservation = made(&place, 4).await;
    let (now_stands, aside) = done(&place, &reservation, &free[..1]).await;
    let unchanged = async |why: &str| {
        assert_eq!(stands(&place, reservation.id).await, now_stands, "{why}");
        assert_eq!(reserved(&place, reservation.id).await, aside, "{why}");
        assert_eq!(listed(&place, &CandidateFilter::available(None)).await, free[1..], "{why}");
    };
    assert_eq!(put_aside(&place, &reservation, &free[1..3]).await, PutAside::Moved);
    unchanged("the reservation as it was before").await;
    let unknown = Reservation { id: ReservationId::from_uuid(place.entropy.uuid()), ..now_stands.clone() };
    assert_eq!(put_aside(&place, &unknown, &free[1..3]).await, PutAside::Moved);
    unchanged("a reservation that is not there").await;
    let stale = [free[1].clone(), next(&free[2]), free[3].clone()];
    assert_eq!(put_aside(&place, &now_stands, &stale).await, PutAside::Lost(vec![1]));
    unchanged("a sandbox at another version").await;
    let twice = [free[0].clone(), free[1].clone()];
    assert_eq!(put_aside(&place, &now_stands, &twice).await, PutAside::Lost(vec![0]));
    assert_eq!(put_aside(&place, &now_stands, &aside).await, PutAside::Lost(vec![0]));
    unchanged("a sandbox that is put aside already").await;
    let arriving = [(free[1].clone(), Status::Arriving), (free[2].clone(), Status::Available)];
    let told = place.store.reservations.put_aside(&now_stands, &arriving, place.clock.now()).await;
    assert_eq!(told.expect("asked"), PutAside::Lost(vec![0]));
    unchanged("a sandbox in another state").await;
    assert_eq!(put_aside(&place, &reservation, &stale).await, PutAside::Moved);
    unchanged("neither as it was read").await;
}

#[tokio::test]
async fn of_sixteen_workers_that_read_the_same_one_puts_aside() {
    let place = Place::with_table().await;
    let free = place.seed(16).await;
    let reservation = made(&place, 16).await;
    let calls = free.into_iter().map(|free| {
        // Sixteen processes: each call is a transaction of its own.
        let (store, reservation, now) = (place.another_store(), reservation.clone(), place.clock.now());
        async move { store.reservations.put_aside(&reservation, &[(free, Status::Available)], now).await }
    });
    let told = together(calls.collect::<Vec<_>>()).await;
    let done = told.iter().filter(|told| matches!(told, Ok(PutAside::Done(_)))).count();
    let refused = told.iter().filter(|told| matches!(told, Ok(PutAside::Moved) | Err(StoreError::Conflict)));
    assert_eq!((done, refused.count()), (1, 15), "{told:?}");
    assert_eq!(
        (stands(&place, reservation.id).await.held, reserved(&place, reservation.id).await.len()),
        (1, 1)
    );
}

#[tokio::test]
async fn as_many_as_one_call_takes_are_put_aside_and_go_back_with_it() {
    let place = Place::with_table().await;
    let free = place.seed(PUT_ASIDE_TOGETHER).await;
    let count = u32::try_from(PUT_ASIDE_TOGETHER).expect("few");
    let (after, aside) = done(&place, &made(&place, count).await, &free).await;
    assert_eq!((after.held, reserved(&place, after.id).await), (count, aside.clone()));
    let told = place.store.reservations.give_back_surplus(&after, &aside, place.clock.now()).await;
    assert!(matches!(&told, Ok(PutAside::Done(after)) if after.held == 0), "{told:?}");
    assert_eq!(reserved(&place, after.id).await, []);
}

#[tokio::test]
async fn a_claim_takes_what_is_put_aside_once_and_as_it_was_listed() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let (after, aside) = done(&place, &made(&place, 2).await, &free).await;
    for (candidate, from) in [
        (&free[0], Status::Available),
        (&aside[0], Status::Available),
        (&older(&aside[0]), Status::Reserved),
        (&next(&aside[0]), Status::Reserved),
        (&aside[0], Status::Arriving),
    ] {
        let told = claims(&place, "student-1", candidate, from).await;
        let is_now = ClaimOutcome::CandidateChanged(Box::new(aside[0].clone()), Some(after.id));
        assert_eq!(told, is_now, "{candidate:?} as {from}");
    }
    let told = claims(&place, "student-1", &aside[0], Status::Reserved).await;
    assert!(matches!(told, ClaimOutcome::Created(_)), "{told:?}");
    let told = claims(&place, "student-2", &aside[0], Status::Reserved).await;
    assert_eq!(told, ClaimOutcome::LostCandidate);
    let claimed = (Status::Allocated, aside[0].version + 1, Some(after.id));
    assert_eq!(status(&place, &free[0].sandbox_id).await, claimed);
    assert_eq!(stands(&place, after.id).await, after, "it counts what it put aside, and no claim writes it");
    assert_eq!(reserved(&place, after.id).await, aside[1..]);
    // What is claimed does not go back with the rest.
    let store = &place.store.reservations;
    for candidate in [&aside[0], &next(&aside[0])] {
        let told = store.give_back(after.id, candidate, place.clock.now()).await.expect("asked");
        assert_eq!(told, Write::Rejected(()));
    }
    assert_eq!(status(&place, &free[0].sandbox_id).await, claimed);
}

#[tokio::test]
async fn at_its_end_or_when_nobody_came_each_goes_back_once_and_nothing_is_put_aside_any_more() {
    for why in [ReservationEnd::Over, ReservationEnd::NoShow, ReservationEnd::Deleted] {
        let place = Place::with_table().await;
        let (free, now) = (place.seed(3).await, place.clock.now());
        let (after, aside) = done(&place, &made(&place, 3).await, &free[..2]).await;
        let store = &place.store.reservations;
        let over = why != ReservationEnd::Deleted;
        let begins = after.terms.from.expect("a time");
        let ends = begins.plus(HOUR * if why == ReservationEnd::Over { 2 } else { 1 });
        let at = if over { ends } else { now };
        let closed =
            reservations::close(&place.store, after.id, why, at).await.expect("asked").expect("there");
        let again =
            reservations::close(&place.store, after.id, ReservationEnd::Unknown, ends.plus(HOUR)).await;
        assert_eq!(again.expect("asked"), Some(closed.clone()), "it ends once");
        assert_eq!(closed.closed.map(|closed| closed.why), Some(why));
        assert_eq!(store.update(&closed).await.expect("asked"), Write::Rejected(()), "it was written");
        assert_eq!(put_aside(&place, &after, &free[2..]).await, PutAside::Moved, "it was open when read");

        let other = ReservationId::from_uuid(place.entropy.uuid());
        for (reservation, candidate) in [
            (other, &aside[0]),
            (after.id, &older(&aside[0])),
            (after.id, &next(&aside[0])),
            (after.id, &free[2]),
        ] {
            let told = store.give_back(reservation, candidate, now).await.expect("asked");
            assert_eq!(told, Write::Rejected(()), "{candidate:?} of {reservation}");
        }
        assert_eq!(reserved(&place, after.id).await, aside);
        for candidate in &aside {
            for expected in [Write::Applied, Write::Rejected(())] {
                let told = store.give_back(after.id, candidate, now).await.expect("asked");
                assert_eq!(told, expected);
            }
            let expected = (Status::Arriving, candidate.version + 1, None);
            assert_eq!(status(&place, &candidate.sandbox_id).await, expected);
        }
        assert_eq!(reserved(&place, after.id).await, []);
        let until = now.plus(Duration::from_secs(1));
        let arriving = place.store.sandboxes.arriving(until, None, 100).await.expect("listed").items;
        let arriving: BTreeSet<_> = arriving.iter().map(|candidate| &candidate.sandbox_id).collect();
        assert_eq!(arriving, aside.iter().map(|candidate| &candidate.sandbox_id).collect());
    }
}

#[tokio::test]
async fn a_reservation_that_its_operator_gave_longer_is_not_ended_by_an_older_read() {
    let place = Place::with_table().await;
    let (seen, _) = done(&place, &made(&place, 1).await, &place.seed(1).await).await;
    let (no_show, over) = (seen.held_at.plus(HOUR + Duration::from_secs(60)), seen.held_at.plus(HOUR * 3));
    assert_eq!(seen.end_due(no_show), Some(ReservationEnd::NoShow));
    assert_eq!(seen.end_due(over), Some(ReservationEnd::Over));
    let longer = |terms: &ReservationTerms| ReservationTerms {
        until: terms.until.map(|until| until.plus(HOUR * 2)),
        no_show: None,
        ..terms.clone()
    };
    let told =
        reservations::change(&place.store, &Policy::default(), seen.id, longer, place.clock.now()).await;
    let Ok(ReservationWrite::Stands(changed)) = told else { panic!("{told:?}") };
    for (why, at) in [(ReservationEnd::NoShow, no_show), (ReservationEnd::Over, over)] {
        let told = reservations::close(&place.store, seen.id, why, at).await.expect("asked");
        assert_eq!(told.as_ref(), Some(&*changed), "{why:?} by the older read");
        assert_eq!(stands(&place, seen.id).await, *changed);
    }
    let told = reservations::close(&place.store, seen.id, ReservationEnd::Deleted, over).await;
    assert!(!told.expect("asked").expect("there").is_open(), "an operator ends it whenever it is");
}

#[tokio::test]
async fn a_reservation_is_changed_while_it_runs_and_what_it_has_too_much_of_goes_back() {
    let place = Place::with_table().await;
    let (free, now) = (place.seed(4).await, place.clock.now());
    let (seen, aside) = done(&place, &made(&place, 4).await, &free[..3]).await;
    let to = async |count: u32| {
        let changed = |terms: &ReservationTerms| ReservationTerms { count, ..terms.clone() };
        reservations::change(&place.store, &Policy::default(), seen.id, changed, now).await.expect("asked")
    };
    let ReservationWrite::Stands(changed) = to(1).await else { panic!("not changed") };
    assert_eq!((changed.version, changed.held, changed.terms.count), (seen.version + 1, 3, 1));
    assert_eq!(to(1).await, ReservationWrite::Stands(changed.clone()), "the same again writes nothing");
    assert_eq!(
        put_aside(&place, &seen, &free[3..]).await,
        PutAside::Moved,
        "it wanted four when it was read"
    );

    let store = &place.store.reservations;
    let back = async |reservation: &Reservation, some: &[Candidate]| {
        store.give_back_surplus(reservation, some, now).await.expect("asked")
    };
    assert_eq!(back(&seen, &aside[..2]).await, PutAside::Moved);
    let stale = [aside[0].clone(), older(&aside[1])];
    assert_eq!(back(&changed, &stale).await, PutAside::Lost(vec![1]));
    assert_eq!(back(&changed, &free[3..]).await, PutAside::Lost(vec![0]), "it was not put aside");
    assert_eq!(
        (stands(&place, seen.id).await, reserved(&place, seen.id).await),
        (*changed.clone(), aside.clone())
    );
    let PutAside::Done(fewer) = back(&changed, &aside[..2]).await else { panic!("not done") };
    assert_eq!((fewer.held, reserved(&place, seen.id).await), (1, aside[2..].to_vec()));
    assert_eq!(status(&place, &aside[0].sandbox_id).await, (Status::Arriving, aside[0].version + 1, None));

    reservations::close(&place.store, seen.id, ReservationEnd::Deleted, now).await.expect("asked");
    assert!(matches!(to(4).await, ReservationWrite::Ended(_)));
    assert_eq!(back(&fewer, &aside[2..]).await, PutAside::Moved, "it was open when read");
}

#[tokio::test]
async fn reservations_are_made_and_changed_one_at_a_time() {
    let place = Place::with_table().await;
    let store = &place.store.reservations;
    let first = made(&place, 1).await;
    let guard = store.guard().await.expect("read");
    let another = || Reservation { id: ReservationId::from_uuid(place.entropy.uuid()), ..first.clone() };
    let (second, third) = (another(), another());
    assert_eq!(store.write(&second, true, guard).await.expect("asked"), Write::Applied);
    let told = store.write(&third, true, guard).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "it was not compared with the second");
    assert_eq!(store.get(third.id).await.expect("read"), None);
    let told = store.write(&second, true, guard + 1).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "it is there");
    let told = store.write(&first, false, guard + 1).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "it is at its own version");
    assert_eq!(store.guard().await.expect("read"), guard + 1, "what is refused raises no guard");
    let after = Reservation { version: first.version + 1, held: 1, ..first.clone() };
    assert_eq!(store.write(&after, false, guard + 1).await.expect("asked"), Write::Applied);
    assert_eq!(stands(&place, first.id).await, after);
}

#[tokio::test]
async fn one_that_leaves_unclaimed_is_counted_no_more_and_only_with_its_reservation() {
    let place = Place::with_table().await;
    let (free, now) = (place.seed(3).await, place.clock.now());
    let (after, aside) = done(&place, &made(&place, 3).await, &free).await;
    let sandboxes = &place.store.sandboxes;
    let why = Quarantine::by_broker(QuarantineCause::Report, "broken", now);
    let leaves = async |candidate: &Candidate, from: Status| {
        let seen = Seen { id: &candidate.sandbox_id, version: candidate.version };
        let missing = sandboxes.missing(from, seen, now).await.expect("asked");
        let quarantined = sandboxes.quarantine(seen, from, &why).await.expect("asked");
        [missing, quarantined]
    };
    for (candidate, from) in [
        (&older(&aside[0]), Status::Reserved),
        (&next(&aside[0]), Status::Reserved),
        (&aside[0], Status::Available),
    ] {
        assert_eq!(leaves(candidate, from).await, [Write::Rejected(()); 2], "{candidate:?} as {from}");
    }
    assert_eq!(
        (stands(&place, after.id).await, reserved(&place, after.id).await),
        (after.clone(), aside.clone())
    );
    assert_eq!(leaves(&aside[0], Status::Reserved).await, [Write::Applied, Write::Rejected(())]);
    let one_less = stands(&place, after.id).await;
    assert_eq!((one_less.held, one_less.version), (2, after.version + 1));
    let seen = Seen { id: &aside[1].sandbox_id, version: aside[1].version };
    let quarantined = sandboxes.quarantine(seen, Status::Reserved, &why).await.expect("asked");
    assert_eq!((quarantined, stands(&place, after.id).await.held), (Write::Applied, 1));
    for (candidate, to) in [(&aside[0], Status::Stale), (&aside[1], Status::Quarantined)] {
        assert_eq!(status(&place, &candidate.sandbox_id).await, (to, candidate.version + 1, None));
    }
    // A count that is less than what is there takes nothing along: `broker pool verify` names it.
    let none = Reservation { version: one_less.version + 2, held: 0, ..one_less };
    assert_eq!(place.store.reservations.update(&none).await.expect("asked"), Write::Applied);
    assert_eq!(leaves(&aside[2], Status::Reserved).await, [Write::Rejected(()); 2]);
    assert_eq!(reserved(&place, after.id).await, aside[2..]);
}

#[tokio::test]
async fn a_seed_that_is_put_aside_is_removed_with_its_place_in_the_reservation() {
    let place = Place::with_table().await;
    let (sandboxes, now) = (&place.store.sandboxes, place.clock.now());
    let began = Timestamp::from_ms(0);
    let mut free = place.seed(4).await;
    sandboxes.insert(&sandbox(7), began).await.expect("inserted");
    let arrival = sandbox(7).arrived(NewSandbox::first_version(began));
    assert_eq!(sandboxes.admit(&arrival, began).await.expect("asked"), Write::Applied);
    free.push(candidate(&sandbox(7)));
    let (another, of_another) = done(&place, &made(&place, 1).await, &free[..1]).await;
    let (after, aside) = done(&place, &made(&place, 4).await, &free[1..]).await;
    let told = claims(&place, "student-1", &aside[2], Status::Reserved).await;
    assert!(matches!(told, ClaimOutcome::Created(_)), "{told:?}");
    let remove = async |seed: &Candidate, of: &Reservation| {
        sandboxes.remove_reserved_seed(seed, of.id, now).await.expect("asked")
    };
    for (why, seed, of) in [
        ("an older version", older(&aside[0]), &after),
        ("a newer version", next(&aside[0]), &after),
        ("of another reservation", aside[0].clone(), &another),
        ("of this one", of_another[0].clone(), &after),
        ("in use", next(&aside[2]), &after),
        ("no seed", aside[3].clone(), &after),
    ] {
        assert_eq!(remove(&seed, of).await, Write::Rejected(()), "{why}");
    }
    let told = sandboxes.remove_unused_seed(&aside[0]).await.expect("asked");
    assert_eq!(told, Write::Rejected(()), "it would still be counted");
    assert_eq!(stands(&place, after.id).await, after);
    assert_eq!(remove(&aside[0], &after).await, Write::Applied);
    assert_eq!(stands(&place, after.id).await.held, after.held - 1);
    assert_eq!(sandboxes.record(&aside[0].sandbox_id).await.expect("read"), None);
    assert_eq!(reserved(&place, after.id).await, [aside[1].clone(), aside[3].clone()]);
}
