//! Tests of the verdicts on a lease.

use proptest::prelude::*;

use super::super::samples::{ask, end, lease};
use super::*;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

#[test]
fn a_key_without_a_lease_is_free() {
    assert_eq!(judge(None, &ask(1, at(1)), at(1)), LeaseVerdict::Free);
}

#[test]
fn a_live_lease_is_the_requests_own_or_one_that_exists() {
    let lease = lease(1, None);
    let told = |number| judge(Some(&lease), &ask(number, at(150)), at(150));
    assert_eq!(told(1), LeaseVerdict::Mine(lease.grant.clone()));
    assert_eq!(told(2), LeaseVerdict::Existing(lease.grant.clone()));
}

#[test]
fn a_lease_is_over_to_the_second_but_not_for_the_request_that_made_it() {
    let lease = lease(1, None);
    let told = |number, now| judge(Some(&lease), &ask(number, at(150)), now);
    let last_moment = Timestamp::from_ms(199_999);
    assert_eq!(told(2, last_moment), LeaseVerdict::Existing(lease.grant.clone()));
    assert_eq!(told(2, at(200)), LeaseVerdict::PastExpiry(Box::new(lease.clone())));
    assert_eq!(told(1, at(200)), LeaseVerdict::Mine(lease.grant.clone()));
}

#[test]
fn another_request_under_an_explicit_key_is_told_but_a_default_key_never() {
    let lease = lease(1, None);
    let other = AllocateRequest { fingerprint: Fingerprint::from_stored("other"), ..ask(2, at(150)) };
    let explicit = AllocateRequest { key_is_explicit: true, ..other.clone() };
    let same = AllocateRequest { key_is_explicit: true, ..ask(2, at(150)) };
    assert_eq!(judge(Some(&lease), &explicit, at(150)), LeaseVerdict::KeyReused);
    for fine in [other, same] {
        assert_eq!(judge(Some(&lease), &fine, at(150)), LeaseVerdict::Existing(lease.grant.clone()));
    }
    let adopted = Lease { fingerprint: Fingerprint::unknown(), ..lease };
    assert!(matches!(judge(Some(&adopted), &explicit, at(150)), LeaseVerdict::Existing(_)));
    // A key that may be claimed anew is not reused.
    assert!(matches!(judge(Some(&adopted), &explicit, at(200)), LeaseVerdict::PastExpiry(_)));
}

#[test]
fn after_an_end_the_request_that_made_it_and_all_before_the_fence_are_superseded() {
    let lease = lease(1, Some(end(150)));
    let told = |number, enqueued_at| judge(Some(&lease), &ask(number, enqueued_at), at(151));
    assert_eq!(told(2, at(148)), LeaseVerdict::Superseded, "at the fence");
    assert_eq!(told(2, Timestamp::from_ms(148_001)), LeaseVerdict::Free);
    assert_eq!(told(1, at(160)), LeaseVerdict::Superseded, "its own lease came to an end");
}

#[test]
fn a_fence_stands_two_seconds_before_what_ended_the_lease() {
    let (now, asked) = (Timestamp::from_ms(100_700), Timestamp::from_ms(95_300));
    let by_request = LeaseEnd::by_request(EndReason::Returned, now, asked, now);
    assert_eq!((by_request.at, by_request.fence), (at(100), Timestamp::from_ms(93_300)));
    let by_broker = LeaseEnd::by_broker(EndReason::Expired, now, now);
    assert_eq!((by_broker.at, by_broker.fence), (at(100), Timestamp::from_ms(98_700)));
    assert_eq!((by_request.reason, by_broker.reason), (EndReason::Returned, EndReason::Expired));
}

#[test]
fn who_asks_after_a_lease_ran_out_is_not_superseded_by_whatever_ends_it() {
    let ran_out = at(100);
    for end in [
        LeaseEnd::by_broker(EndReason::Expired, at(1_900), ran_out),
        LeaseEnd::by_broker(EndReason::Released, at(103), ran_out),
        LeaseEnd::by_request(EndReason::Returned, at(1_000), at(999), ran_out),
        LeaseEnd::by_request(EndReason::Reported, at(1_000), at(1_000), ran_out),
    ] {
        let lease = lease(1, Some(end));
        let told = |asked_at| judge(Some(&lease), &ask(2, asked_at), at(2_000));
        assert_eq!(
            [98, 99, 102].map(|second| told(at(second))),
            [LeaseVerdict::Superseded, LeaseVerdict::Free, LeaseVerdict::Free]
        );
    }
}

proptest! {
    /// The store's condition on the lease (`LEASE_IS_FREE`) lets a claim through exactly where the verdict is "free".
    #[test]
    fn free_is_what_the_condition_of_the_claim_says(
        exists in any::<bool>(), ended in prop::option::of((0..2_000_u64, prop::sample::select(vec![EndReason::Returned, EndReason::Expired, EndReason::Abandoned, EndReason::Released]))), mine in any::<bool>(),
        explicit in any::<bool>(), enqueued_ms in 0..2_000_u64, now_ms in 0..400_000_u64,
    ) {
        let end = ended.map(|(fence, reason)| LeaseEnd { at: at(1), reason, fence: Timestamp::from_ms(fence) });
        let lease = exists.then(|| lease(1, end));
        let number = if mine { 1 } else { 2 };
        let ask = AllocateRequest { key_is_explicit: explicit, ..ask(number, Timestamp::from_ms(enqueued_ms)) };
        let condition = match &lease {
            None => true,
            Some(lease) => lease.end.as_ref().is_some_and(|end| !mine && end.fence.as_ms() < enqueued_ms),
        };
        let verdict = judge(lease.as_ref(), &ask, Timestamp::from_ms(now_ms));
        prop_assert_eq!(verdict == LeaseVerdict::Free, condition, "{:?}", verdict);
    }

    #[test]
    fn what_has_ended_is_never_presented_as_usable(mine in any::<bool>(), enqueued in 0..400_u64, now in 0..400_u64) {
        let lease = lease(1, Some(end(150)));
        let verdict = judge(Some(&lease), &ask(if mine { 1 } else { 2 }, at(enqueued)), at(now));
        prop_assert!(matches!(verdict, LeaseVerdict::Free | LeaseVerdict::Superseded), "{:?}", verdict);
    }

    #[test]
    fn a_reason_is_read_back_and_any_other_word_is_a_newer_programs(reason in prop::sample::select(vec![EndReason::Returned, EndReason::Expired, EndReason::Abandoned, EndReason::Released]), text in "[a-z]{0,9}") {
        prop_assert_eq!(EndReason::from_stored(reason.as_str()), reason);
        let known = ["marked", "expired", "abandoned", "released"].contains(&text.as_str());
        prop_assert_eq!(EndReason::from_stored(&text) != EndReason::Unknown, known);
    }
}
