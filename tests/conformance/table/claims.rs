//! Claims: all or nothing, the reasons of a cancelled transaction, and the item in its way.

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{EndReason, LeaseEnd, Outcome, PersistedRequest, RequestState, Status, Subject};
use broker_store::{ClaimOutcome, Write};
use broker_tests::together;

use crate::place::Place;

#[tokio::test]
async fn a_claim_changes_lease_and_sandbox_together() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let ask = place.ask("student-1");
    let ClaimOutcome::Created(grant) = place.claim(&ask, &free).await else { panic!("not created") };
    let sandbox = place.store.sandboxes.get(&free.sandbox_id).await.expect("read").expect("there");
    let lease = place.store.leases.get(&ask.lease_key).await.expect("read").expect("there");
    assert_eq!((sandbox.status, sandbox.version), (Status::Allocated, 2));
    assert_eq!(sandbox.allocation.expect("allocated").id, lease.allocation_id);
    assert_eq!((lease.grant, lease.request_id, lease.end), (grant, ask.request_id, None));
}

#[tokio::test]
async fn a_key_that_holds_one_is_told_its_lease_and_takes_nothing() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let first = place.ask("student-1");
    assert!(matches!(place.claim(&first, &free[0]).await, ClaimOutcome::Created(_)));
    let ClaimOutcome::LeaseStands(lease) = place.claim(&place.ask("student-1"), &free[1]).await else {
        panic!("the lease is not told");
    };
    assert_eq!(Some(*lease), place.store.leases.get(&first.lease_key).await.expect("read"));
    let other = place.store.sandboxes.get(&free[1].sandbox_id).await.expect("read").expect("there");
    assert_eq!((other.status, other.version), (Status::Available, 1));
}

#[tokio::test]
async fn a_candidate_that_is_taken_is_lost_and_leaves_no_lease() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    place.claim(&place.ask("student-1"), &free).await;
    let second = place.ask("student-2");
    assert_eq!(place.claim(&second, &free).await, ClaimOutcome::LostCandidate);
    assert_eq!(place.store.leases.get(&second.lease_key).await.expect("read"), None);
}

#[tokio::test]
async fn a_claim_at_another_version_is_lost_and_told_the_newer_one() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let older = broker_store::Candidate { version: 0, ..free.clone() };
    let told = place.claim(&place.ask("student-1"), &older).await;
    assert_eq!(told, ClaimOutcome::CandidateChanged(Box::new(free.clone()), None), "it tells what it is now");
    assert!(matches!(place.claim(&place.ask("student-1"), &free).await, ClaimOutcome::Created(_)));
}

#[tokio::test]
async fn when_both_are_in_the_way_both_reasons_are_told_and_the_lease_counts() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    place.claim(&place.ask("student-1"), &free).await;
    assert!(matches!(place.claim(&place.ask("student-1"), &free).await, ClaimOutcome::LeaseStands(_)));
}

#[tokio::test]
async fn of_sixteen_keys_one_gets_the_sandbox() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let claims = (0..16).map(|n| {
        // Sixteen processes: each call is a transaction of its own.
        let (store, ask, free) = (place.another_store(), place.ask(&format!("student-{n}")), free.clone());
        let (allocation_id, now) = (place.entropy.allocation_id(), place.clock.now());
        async move {
            let claim = broker_store::Claim {
                request: &ask,
                candidate: &free,
                allocation_id,
                now,
                listed: broker_domain::Status::Available,
                from_line: false,
                permit: None,
            };
            store.leases.claim(&claim).await
        }
    });
    let told = together(claims.collect::<Vec<_>>()).await;
    let created = told.iter().filter(|told| matches!(told, Ok(ClaimOutcome::Created(_)))).count();
    // A real table may also answer that another transaction is in progress.
    let lost = told.iter().filter(|told| {
        matches!(told, Ok(ClaimOutcome::LostCandidate) | Err(broker_store::StoreError::Conflict))
    });
    assert_eq!((created, lost.count()), (1, 15), "{told:?}");
}

#[tokio::test]
async fn of_eight_sandboxes_one_key_gets_one() {
    let place = Place::with_table().await;
    let free = place.seed(8).await;
    let claims = free.iter().cloned().map(|free| {
        let (store, ask) = (place.another_store(), place.ask("student-1"));
        let (allocation_id, now) = (place.entropy.allocation_id(), place.clock.now());
        async move {
            let claim = broker_store::Claim {
                request: &ask,
                candidate: &free,
                allocation_id,
                now,
                listed: broker_domain::Status::Available,
                from_line: false,
                permit: None,
            };
            store.leases.claim(&claim).await
        }
    });
    let told = together(claims.collect::<Vec<_>>()).await;
    let created = told.iter().filter(|told| matches!(told, Ok(ClaimOutcome::Created(_)))).count();
    assert_eq!(created, 1, "{told:?}");
    let allocated = place.store.sandboxes.count(&Policy::default()).await.expect("counted").by_status()
        [&Status::Allocated];
    assert_eq!(allocated, 1);
}

#[tokio::test]
async fn claims_that_share_a_call_are_answered_each_on_its_own() {
    let place = Place::with_table().await;
    let free = place.seed(30).await;
    place.claim(&place.ask("holder"), &free[0]).await;
    // In one call, more or less: winners, a lost candidate, a key that holds one.
    let winners = (1..28).map(|n| (format!("student-{n}"), free[n].clone()));
    let others = [("late".to_owned(), free[0].clone()), ("holder".to_owned(), free[29].clone())];
    let claims = winners.chain(others).map(|(track, free)| {
        let (store, ask) = (place.store.clone(), place.ask(&track));
        let (allocation_id, now) = (place.entropy.allocation_id(), place.clock.now());
        async move {
            let claim = broker_store::Claim {
                request: &ask,
                candidate: &free,
                allocation_id,
                now,
                listed: broker_domain::Status::Available,
                from_line: false,
                permit: None,
            };
            store.leases.claim(&claim).await.expect("the table answers")
        }
    });
    let told = together(claims.collect::<Vec<_>>()).await;
    assert!(told[..27].iter().all(|told| matches!(told, ClaimOutcome::Created(_))), "{told:?}");
    assert_eq!(told[27], ClaimOutcome::LostCandidate);
    assert!(matches!(told[28], ClaimOutcome::LeaseStands(_)), "{told:?}");
    assert_eq!(
        place.store.sandboxes.count(&Policy::default()).await.expect("counted").by_status()
            [&Status::Allocated],
        28
    );
}

/// The record of a request without a waiting caller.
pub(super) fn record(ask: &broker_domain::AllocateRequest) -> PersistedRequest {
    PersistedRequest {
        request_id: ask.request_id,
        track: ask.lease_key.track.clone(),
        subject: Subject::Allocate(ask.lease_key.clone()),
        asynchronous: true,
        message: Some("what lies in the queue".to_owned()),
        state: RequestState::Queued,
        parked: None,
        created_at: ask.times.enqueued_at.floor_to_second(),
        deadline: ask.times.deadline,
    }
}

#[tokio::test]
async fn an_asynchronous_claim_stores_its_outcome_in_the_same_write() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let ask = broker_domain::AllocateRequest { asynchronous: true, ..place.ask("student-1") };
    assert_eq!(place.store.requests.record(&record(&ask)).await.expect("recorded"), Write::Applied);
    let ClaimOutcome::Created(grant) = place.claim(&ask, &free).await else { panic!("not created") };
    let ended = place.store.requests.get(ask.request_id).await.expect("read").expect("there");
    assert_eq!(ended.state, RequestState::Ended(Outcome::Created(grant)));
    assert_eq!(ended.message, None, "its message is not sent again");
    assert_eq!(place.store.requests.cancel(ask.request_id).await.expect("asked"), Write::Rejected(()));
}

#[tokio::test]
async fn a_cancelled_request_claims_nothing() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let ask = broker_domain::AllocateRequest { asynchronous: true, ..place.ask("student-1") };
    // Without a record, too: the update makes none.
    assert_eq!(place.claim(&ask, &free).await, ClaimOutcome::RequestEnded);
    assert_eq!(place.store.requests.get(ask.request_id).await.expect("read"), None);
    place.store.requests.record(&record(&ask)).await.expect("recorded");
    assert_eq!(place.store.requests.cancel(ask.request_id).await.expect("asked"), Write::Applied);
    assert_eq!(place.claim(&ask, &free).await, ClaimOutcome::RequestEnded);
    assert_eq!(
        place.store.sandboxes.count(&Policy::default()).await.expect("counted").by_status()
            [&Status::Available],
        1
    );
}

#[tokio::test]
async fn after_an_end_only_what_was_asked_later_claims() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let first = place.ask("student-1");
    place.claim(&first, &free[0]).await;
    let allocation =
        place.store.sandboxes.get(&free[0].sandbox_id).await.expect("read").and_then(|s| s.allocation);
    let now = place.clock.now();
    let end = LeaseEnd::by_request(EndReason::Returned, now, now, now);
    let ended = place.store.leases.end(&free[0].sandbox_id, &allocation.expect("allocated"), &end).await;
    assert_eq!(ended.expect("ended"), Write::Applied);

    // The same request again, and one from before the fence: to the millisecond.
    assert!(matches!(place.claim(&first, &free[1]).await, ClaimOutcome::LeaseStands(_)));
    let mut fenced = place.ask("student-1");
    fenced.times.enqueued_at = end.fence;
    assert!(matches!(place.claim(&fenced, &free[1]).await, ClaimOutcome::LeaseStands(_)));
    fenced.times.enqueued_at = end.fence.plus(Duration::from_millis(1));
    assert!(matches!(place.claim(&fenced, &free[1]).await, ClaimOutcome::Created(_)));
}
