//! Tests of the decisions about renewals.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::samples::{allocation, key, sandbox};
use crate::{Heartbeat, LabDuration};

const HOUR: u64 = 3_600;

fn hours(hours: u64) -> LabDuration {
    LabDuration::new(hours).unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_secs(second)
}

fn bounds() -> LeaseBounds {
    LeaseBounds { longest: Duration::from_secs(168 * HOUR), usual: hours(4) }
}

fn wanted(until: RenewUntil) -> RenewRequest {
    RenewRequest { until, exact: false }
}

/// Of the sample that was allocated at second 100 and ends at second 200.
fn renewed(term: Term, wanted: RenewRequest, now: u64) -> Result<Renewal, NotRenewable> {
    renew(&allocation(1), term, &wanted, &bounds(), at(now))
}

#[test]
fn an_end_moves_as_wanted_from_now_and_never_back() {
    let end = |until, now| renewed(Term::default(), wanted(until), now).unwrap().expires_at.as_secs();
    assert_eq!(end(RenewUntil::For(hours(2)), 150), 150 + 2 * HOUR);
    assert_eq!(end(RenewUntil::For(hours(2)), 1_900), 1_900 + 2 * HOUR, "in its grace");
    assert_eq!(end(RenewUntil::Until(at(5_000)), 150), 5_000);
    assert_eq!(end(RenewUntil::Until(at(120)), 150), 200, "never back");
    assert_eq!(end(RenewUntil::Again, 150), 150 + 4 * HOUR, "the usual");
    let long = Term { hours: Some(hours(9)), heartbeat: None };
    assert_eq!(renewed(long, wanted(RenewUntil::Again), 150).unwrap().expires_at, at(150 + 9 * HOUR));
}

#[test]
fn no_lease_lasts_longer_than_the_longest_unless_an_operator_said_so() {
    let latest = 100 + 168 * HOUR;
    let far = renewed(Term::default(), wanted(RenewUntil::Until(at(u64::MAX / 2_000))), 150).unwrap();
    assert_eq!((far.expires_at, far.latest), (at(latest), at(latest)));
    let extended = Allocation { expires_at: at(latest + HOUR), ..allocation(1) };
    let kept = renew(&extended, Term::default(), &wanted(RenewUntil::For(hours(168))), &bounds(), at(latest))
        .unwrap();
    assert_eq!((kept.expires_at, kept.latest, kept.moves), (at(latest + HOUR), at(latest + HOUR), false));
}

#[test]
fn what_must_be_exact_is_refused_where_it_cannot_be_and_written_where_it_can() {
    let exact = |until, now| renewed(Term::default(), RenewRequest { until, exact: true }, now);
    let latest = at(100 + 168 * HOUR);
    let refused = exact(RenewUntil::Until(latest.plus(Duration::from_secs(1))), 150);
    assert_eq!(refused, Err(NotRenewable { nearest: latest, latest }));
    assert_eq!(exact(RenewUntil::Until(at(199)), 150), Err(NotRenewable { nearest: at(200), latest }));
    let by_a_second = exact(RenewUntil::Until(at(201)), 150).unwrap();
    assert_eq!((by_a_second.expires_at, by_a_second.moves), (at(201), true));
    assert!(!exact(RenewUntil::Until(at(200)), 150).unwrap().moves, "a repeat");
}

#[test]
fn a_little_longer_is_not_worth_a_write() {
    let end = |until| renewed(Term::default(), wanted(RenewUntil::Until(at(until))), 150).unwrap();
    assert_eq!((end(259).expires_at, end(259).moves), (at(200), false));
    assert_eq!((end(260).expires_at, end(260).moves), (at(260), true));
}

#[test]
fn a_heartbeat_moves_the_end_by_whole_heartbeats_and_not_beyond_the_hours() {
    let term = Term { hours: Some(hours(1)), heartbeat: Some(Heartbeat::SHORTEST) };
    let beat = |now| renewed(term, wanted(RenewUntil::Again), now).unwrap();
    assert_eq!((beat(139).moves, beat(139).expires_at), (false, at(200)), "29 s more");
    assert_eq!((beat(140).moves, beat(140).expires_at), (true, at(230)));
    assert_eq!(beat(3_690).expires_at, at(100 + HOUR), "the hours are over");
    assert_eq!(beat(3_690).latest, at(100 + HOUR));
    let longer = renewed(term, wanted(RenewUntil::For(hours(2))), 150).unwrap();
    assert_eq!(longer.expires_at, at(150 + 2 * HOUR), "who says more gets more");
}

#[test]
fn a_heartbeat_without_hours_lasts_as_long_as_the_broker_lends_also_beyond_a_week() {
    let bounds = LeaseBounds { longest: Duration::from_secs(400 * HOUR), ..bounds() };
    let latest = |hours| {
        let term = Term { hours: Some(hours), heartbeat: Some(Heartbeat::SHORTEST) };
        let beat = renew(&allocation(1), term, &wanted(RenewUntil::Again), &bounds, at(150)).unwrap();
        beat.latest.as_secs() - 100
    };
    assert_eq!(latest(LabDuration::LONGEST), 400 * HOUR, "it said none");
    assert_eq!(latest(hours(167)), 167 * HOUR);
}

#[test]
fn only_the_owner_renews_and_only_while_the_lease_is_live() {
    let (owner, other) = (key(1).track, key(2).track);
    for status in Status::ALL {
        let held = sandbox(1, status, Some(allocation(1)));
        assert_eq!(judge_renewal(&held, &other), RenewVerdict::NotOwner, "{status}");
        let expected = match status {
            Status::Allocated => RenewVerdict::Live(held.allocation.as_ref().unwrap()),
            Status::Quarantined | Status::PendingDeletion | Status::DeletionFailed | Status::Deleted => {
                RenewVerdict::Ended(None)
            }
            Status::Arriving | Status::Available | Status::Reserved | Status::Stale | Status::Unknown => {
                RenewVerdict::NotOwner
            }
        };
        assert_eq!(judge_renewal(&held, &owner), expected, "{status}");
    }
    let newer = sandbox(1, Status::Unknown, Some(allocation(1)));
    assert_eq!(judge_renewal(&newer, &owner), RenewVerdict::Newer);
}

proptest! {
    #[test]
    fn no_renewal_moves_an_end_back_or_beyond_the_latest(
        now in 0..10_000_000_u64, until in any::<u64>(), ask in 1..=168_u64, which in 0..3, exact in any::<bool>(),
        beat in prop::option::of(30..=3_600_u64), said in prop::option::of(1..=168_u64),
    ) {
        let term = Term {
            hours: said.map(hours),
            heartbeat: beat.map(|beat| Heartbeat::new(beat).unwrap()),
        };
        let until = match which {
            0 => RenewUntil::Again,
            1 => RenewUntil::For(hours(ask)),
            _ => RenewUntil::Until(Timestamp::from_ms(until)),
        };
        match renewed(term, RenewRequest { until, exact }, now) {
            Ok(Renewal { expires_at, latest, moves }) => {
                prop_assert!(at(200) <= expires_at && expires_at <= latest);
                prop_assert_eq!(moves, expires_at > at(200));
                prop_assert_eq!(expires_at, expires_at.floor_to_second());
            }
            Err(NotRenewable { nearest, latest }) => prop_assert!(exact && at(200) <= nearest && nearest <= latest),
        }
    }
}
