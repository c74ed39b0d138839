//! Permits: taken by the claim, freed by every end, in its own transaction; and what mends them.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::reconcile::Step;
use broker_domain::{
    AllocateRequest, EndReason, LabDuration, Lease, LeaseEnd, Limit, NamePrefix, Permit, Quarantine,
    QuarantineCause, Status, TenantName, Timestamp, overdue_for_owner,
};
use broker_store::{Candidate, Claim, ClaimOutcome, Write, permits};
use broker_tests::together;

use crate::place::Place;

fn permit(slot: u32) -> Permit {
    let (tenant, prefix) =
        (TenantName::new("acme").expect("a tenant"), NamePrefix::new("name-").expect("a prefix"));
    Permit { limit: Limit { tenant, prefix }, slot }
}

async fn claim(
    place: &Place,
    ask: &AllocateRequest,
    candidate: &Candidate,
    permit: &Permit,
) -> Result<ClaimOutcome, broker_store::StoreError> {
    let claim = Claim {
        request: ask,
        candidate,
        allocation_id: place.entropy.allocation_id(),
        now: place.clock.now(),
        listed: Status::Available,
        from_line: false,
        permit: Some(permit),
    };
    place.store.leases.claim(&claim).await
}

/// The lease of `track`, which holds `candidate` under a permit.
async fn held(place: &Place, track: &str, candidate: &Candidate, permit: &Permit) -> Lease {
    let ask = place.ask(track);
    let told = claim(place, &ask, candidate, permit).await.expect("asked");
    assert!(matches!(told, ClaimOutcome::Created(_)), "{told:?}");
    place.store.leases.get(&ask.lease_key).await.expect("read").expect("there")
}

async fn slots(place: &Place) -> BTreeSet<u32> {
    let records = place.store.permits.held(&permit(0).limit).await.expect("read");
    records.into_iter().map(|record| record.permit.slot).collect()
}

fn ended(place: &Place) -> LeaseEnd {
    LeaseEnd::by_broker(EndReason::Released, place.clock.now(), place.clock.now())
}

#[tokio::test]
async fn a_claim_takes_its_permit_and_tells_lease_and_sandbox() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let lease = held(&place, "student-1", &free[0], &permit(3)).await;
    assert_eq!(lease.permit, Some(permit(3)));
    let sandbox = place.store.sandboxes.get(&free[0].sandbox_id).await.expect("read").expect("there");
    assert_eq!(sandbox.allocation.expect("allocated"), lease.allocation());
    let records = place.store.permits.held(&permit(0).limit).await.expect("read");
    assert!(records.len() == 1 && records[0].is_held_by(Some(&lease)), "{records:?}");

    let other = place.ask("student-2");
    let told = claim(&place, &other, &free[1], &permit(3)).await.expect("asked");
    assert_eq!(told, ClaimOutcome::PermitTaken);
    assert!(place.store.leases.get(&other.lease_key).await.expect("read").is_none(), "nothing was written");
    held(&place, "student-2", &free[1], &permit(4)).await;
    assert_eq!(slots(&place).await, BTreeSet::from([3, 4]));
}

#[tokio::test]
async fn of_sixteen_claims_one_gets_the_permit() {
    let place = Place::with_table().await;
    let free = place.seed(16).await;
    let claims = free.into_iter().enumerate().map(|(n, free)| {
        // Sixteen processes: each call is a transaction of its own.
        let (store, ask) = (place.another_store(), place.ask(&format!("student-{n}")));
        let (allocation_id, now) = (place.entropy.allocation_id(), place.clock.now());
        async move {
            let wanted = permit(0);
            let claim = Claim {
                request: &ask,
                candidate: &free,
                allocation_id,
                now,
                listed: Status::Available,
                from_line: false,
                permit: Some(&wanted),
            };
            store.leases.claim(&claim).await
        }
    });
    let told = together(claims.collect::<Vec<_>>()).await;
    let created = told.iter().filter(|told| matches!(told, Ok(ClaimOutcome::Created(_)))).count();
    let refused = told.iter().filter(|told| {
        matches!(told, Ok(ClaimOutcome::PermitTaken) | Err(broker_store::StoreError::Conflict))
    });
    assert_eq!((created, refused.count()), (1, 15), "{told:?}");
}

#[tokio::test]
async fn every_end_frees_the_permit_of_its_allocation_and_a_return_without_a_look_does_not_end_it() {
    let place = Place::with_table().await;
    let free = place.seed(4).await;
    let store = &place.store.leases;
    let lease = held(&place, "student-0", &free[0], &permit(0)).await;
    let now = place.clock.now();
    let blindly = store.return_sandbox(&free[0].sandbox_id, &lease.key, now, now, &ended(&place)).await;
    assert_eq!(blindly.expect("asked"), Write::Rejected(()), "which permit would it free?");
    assert_eq!(slots(&place).await, BTreeSet::from([0]));
    let told = store.end(&free[0].sandbox_id, &lease.allocation(), &ended(&place)).await.expect("asked");
    assert_eq!((told, slots(&place).await), (Write::Applied, BTreeSet::new()));

    let lease = held(&place, "student-1", &free[1], &permit(0)).await;
    let late = Timestamp::from_secs(u64::from(u32::MAX));
    let told =
        store.expire(&free[1].sandbox_id, &lease.allocation(), late, &ended(&place)).await.expect("asked");
    assert_eq!((told, slots(&place).await), (Write::Applied, BTreeSet::new()));

    let lease = held(&place, "student-2", &free[2], &permit(0)).await;
    let broken = Quarantine::by_broker(QuarantineCause::Report, "broken", place.clock.now());
    let told = store.report(&free[2].sandbox_id, &lease.allocation(), &ended(&place), &broken).await;
    assert_eq!((told.expect("asked"), slots(&place).await), (Write::Applied, BTreeSet::new()));

    let lease = held(&place, "student-3", &free[3], &permit(0)).await;
    let step = Step::EndLease { lease, end: ended(&place) };
    let told = place.store.reconcile.step(&step, LabDuration::SHORTEST, place.clock.now()).await;
    assert_eq!((told.expect("asked"), slots(&place).await), (Write::Applied, BTreeSet::new()));
}

#[tokio::test]
async fn a_replacement_moves_its_own_permit_or_gives_it_back() {
    let place = Place::with_table().await;
    let free = place.seed(5).await;
    let now = place.clock.now().plus(std::time::Duration::from_secs(100 * 3_600));
    let mut old = held(&place, "student-1", &free[0], &permit(0)).await;
    for (candidate, slot) in [(&free[1], 0), (&free[2], 1)] {
        let (ask, wanted) = (place.ask("student-1"), permit(slot));
        let claim = Claim {
            request: &ask,
            candidate,
            allocation_id: place.entropy.allocation_id(),
            now: place.clock.now(),
            listed: Status::Available,
            from_line: false,
            permit: Some(&wanted),
        };
        let told = place.store.leases.replace(&claim, &old, overdue_for_owner(now), &ended(&place)).await;
        assert!(matches!(told, Ok(ClaimOutcome::Created(_))), "{told:?}");
        old = place.store.leases.get(&ask.lease_key).await.expect("read").expect("there");
        let records = place.store.permits.held(&wanted.limit).await.expect("read");
        assert!(records.len() == 1 && records[0].is_held_by(Some(&old)), "{records:?}");
    }
    // Another one's permit is not taken by a replacement either.
    held(&place, "student-2", &free[3], &permit(0)).await;
    let (ask, wanted) = (place.ask("student-1"), permit(0));
    let claim = Claim {
        request: &ask,
        candidate: &free[4],
        allocation_id: place.entropy.allocation_id(),
        now: place.clock.now(),
        listed: Status::Available,
        from_line: false,
        permit: Some(&wanted),
    };
    let told = place.store.leases.replace(&claim, &old, overdue_for_owner(now), &ended(&place)).await;
    assert_eq!(told.expect("asked"), ClaimOutcome::PermitTaken);
}

#[tokio::test]
async fn a_permit_of_another_allocation_is_neither_ended_nor_swept() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let lease = held(&place, "student-1", &free[0], &permit(0)).await;
    let record = place.store.permits.held(&permit(0).limit).await.expect("read").remove(0);
    assert!(!permits::free_if_dead(&place.store, &record).await.expect("asked"), "its lease is live");
    // An end of a program that knows no permits leaves it; the next one that takes it is another allocation.
    let without = broker_domain::Allocation { permit: None, ..lease.allocation() };
    let told = place.store.leases.end(&free[0].sandbox_id, &without, &ended(&place)).await.expect("asked");
    assert_eq!((told, slots(&place).await), (Write::Applied, BTreeSet::from([0])));
    assert!(permits::free_if_dead(&place.store, &record).await.expect("asked"));
    held(&place, "student-2", &free[1], &permit(0)).await;
    assert_eq!(place.store.permits.free(&record).await.expect("asked"), Write::Rejected(()), "it moved on");
    assert_eq!(slots(&place).await, BTreeSet::from([0]));
}

#[tokio::test]
async fn an_end_whose_permit_another_allocation_holds_ends_nothing_and_one_without_a_permit_ends() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let lease = held(&place, "student-1", &free[0], &permit(0)).await;
    delete(&place, "PERMIT#acme#name-", "0").await;
    let other = held(&place, "student-2", &free[1], &permit(0)).await;
    let end = async |lease: &Lease| {
        let sandbox = &lease.grant.sandbox_id;
        place.store.leases.end(sandbox, &lease.allocation(), &ended(&place)).await.expect("asked")
    };
    assert_eq!(end(&lease).await, Write::Rejected(()), "it would free what is not its own");
    assert_eq!(slots(&place).await, BTreeSet::from([0]));
    assert_eq!(end(&other).await, Write::Applied);
    assert_eq!(end(&lease).await, Write::Applied, "a permit that is gone holds up no end");
    assert_eq!(slots(&place).await, BTreeSet::new());
}

#[tokio::test]
async fn halves_of_a_claim_are_mended() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let lease = held(&place, "student-1", &free[0], &permit(0)).await;
    let gone = held(&place, "student-2", &free[1], &permit(1)).await;
    let without = broker_domain::Allocation { permit: None, ..gone.allocation() };
    place.store.leases.end(&free[1].sandbox_id, &without, &ended(&place)).await.expect("asked");
    delete(&place, "PERMIT#acme#name-", "0").await;
    assert_eq!(slots(&place).await, BTreeSet::from([1]));
    assert_eq!(permits::mend(&place.store).await.expect("asked"), 2);
    let records = place.store.permits.held(&permit(0).limit).await.expect("read");
    assert!(records.len() == 1 && records[0].is_held_by(Some(&lease)), "{records:?}");
    assert_eq!(
        place.store.permits.restore(&gone, &permit(5)).await.expect("asked"),
        Write::Rejected(()),
        "it ended"
    );
    assert_eq!(
        place.store.permits.restore(&lease, &permit(0)).await.expect("asked"),
        Write::Rejected(()),
        "it is held"
    );
}

async fn delete(place: &Place, pk: &str, sk: &str) {
    let key = |text: &str| AttributeValue::S(text.to_owned());
    let delete = place.aws.dynamodb.delete_item().table_name(&place.table);
    delete.key("PK", key(pk)).key("SK", key(sk)).send().await.expect("deleted");
}

#[tokio::test]
async fn a_look_for_free_slots_reads_some_that_are_held_in_the_order_of_their_texts() {
    let place = Place::with_table().await;
    let free = place.seed(5).await;
    for (candidate, slot) in free.iter().zip([0, 2, 10, 11, 9]) {
        held(&place, &format!("student-{slot}"), candidate, &permit(slot)).await;
    }
    let look = async |slot, count| {
        let limit = permit(0).limit;
        let page = place.store.permits.slots_after(&limit, slot, count).await.expect("read");
        (page.items.into_iter().collect::<Vec<_>>(), page.next)
    };
    assert_eq!(look(1, 2).await, (vec![10, 11], Some(11)));
    let (rest, next) = look(1, 10).await;
    assert_eq!((rest, next), (vec![2, 9, 10, 11], None), "a slot that is free is a place to begin, too");
    assert_eq!(look(9, 10).await, (vec![], None));
}
