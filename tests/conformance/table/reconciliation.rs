//! The writes of a reconciliation, each only if lease and sandbox are as they were read.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::reconcile::Step;
use broker_domain::{
    Allocation, EndReason, Fingerprint, Grant, IdempotencyKey, LabDuration, Lease, LeaseEnd, LeaseKey,
    Sandbox, SandboxId, Status, TrackId,
};
use broker_store::reconcile::{ReconcileError, ReconcileOptions, reconcile};
use broker_store::{PoolStatus, Write};

use super::terms::alter;
use crate::place::Place;

const HOURS: LabDuration = LabDuration::nearest(4);

async fn sandbox_of(place: &Place, id: &SandboxId) -> Sandbox {
    place.store.sandboxes.get(id).await.expect("read").expect("there")
}

async fn take(place: &Place, step: &Step) -> Write {
    place.store.reconcile.step(step, HOURS, place.clock.now()).await.expect("the table answers")
}

fn key(track: &str) -> LeaseKey {
    let track = TrackId::new(track).expect("a valid track");
    LeaseKey { key: IdempotencyKey::from(&track), track }
}

/// A lease of `track` on `sandbox`, as a step would write it.
fn lease(place: &Place, track: &str, sandbox: &Sandbox) -> Lease {
    let now = place.clock.now().floor_to_second();
    Lease {
        key: key(track),
        request_id: place.entropy.request_id(now),
        allocation_id: place.entropy.allocation_id(),
        fingerprint: Fingerprint::unknown(),
        grant: Grant {
            sandbox_id: sandbox.id.clone(),
            name: sandbox.name.clone(),
            external_id: sandbox.external_id.clone(),
            track_name: None,
            allocated_at: now,
            expires_at: now.plus(Duration::from_secs(60)),
            attributes: sandbox.attributes.clone(),
        },
        term: broker_domain::Term::default(),
        tenant: None,
        permit: None,
        end: None,
    }
}

fn allocation(lease: &Lease) -> Allocation {
    Allocation {
        id: lease.allocation_id,
        lease_key: lease.key.clone(),
        track_name: None,
        allocated_at: lease.grant.allocated_at,
        expires_at: lease.grant.expires_at,
        permit: lease.permit.clone(),
    }
}

fn bind(sandbox: &Sandbox, stands: Option<&Lease>, lease: &Lease) -> Step {
    Step::Bind {
        sandbox: sandbox.clone(),
        stands: stands.cloned().map(Box::new),
        lease: Box::new(lease.clone()),
    }
}

#[tokio::test]
async fn a_lease_is_bound_to_its_sandbox_if_both_are_as_they_were_read() {
    let place = Place::with_table().await;
    let seeded = place.seed(2).await;
    let free = sandbox_of(&place, &seeded[0].sandbox_id).await;
    let other = sandbox_of(&place, &seeded[1].sandbox_id).await;
    let first = lease(&place, "student-1", &free);
    let elsewhere = Sandbox { status: Status::Stale, ..free.clone() };
    let older = Sandbox { version: free.version - 1, ..free.clone() };
    for wrong in
        [bind(&elsewhere, None, &first), bind(&older, None, &first), bind(&free, Some(&first), &first)]
    {
        assert_eq!(take(&place, &wrong).await, Write::Rejected(()), "{wrong:?}");
    }
    assert_eq!(place.store.leases.get(&first.key).await.expect("read"), None, "neither is written");
    assert_eq!(take(&place, &bind(&free, None, &first)).await, Write::Applied);
    assert_eq!(place.store.leases.get(&first.key).await.expect("read"), Some(first.clone()));
    let held = sandbox_of(&place, &free.id).await;
    assert_eq!((held.status, held.allocation.as_ref()), (Status::Allocated, Some(&allocation(&first))));

    // The key holds one: nothing, an ended one or another one was read there, and it is not so.
    let second = lease(&place, "student-1", &other);
    let ended = Lease {
        end: Some(LeaseEnd::by_broker(EndReason::Returned, place.clock.now(), place.clock.now())),
        ..first.clone()
    };
    for stands in [None, Some(&ended), Some(&second)] {
        assert_eq!(take(&place, &bind(&other, stands, &second)).await, Write::Rejected(()), "{stands:?}");
    }
    assert_eq!(sandbox_of(&place, &other.id).await, other);
    // The sandbox's half alone is written anew under its own lease.
    assert_eq!(take(&place, &bind(&held, Some(&first), &first)).await, Write::Applied);

    let end = LeaseEnd::by_broker(EndReason::Returned, place.clock.now(), place.clock.now());
    let held = sandbox_of(&place, &free.id).await;
    let step = Step::End { sandbox: held, allocation: allocation(&first), end };
    assert_eq!(take(&place, &step).await, Write::Applied);
    assert_eq!(take(&place, &bind(&other, Some(&first), &second)).await, Write::Rejected(()), "it has ended");
    assert_eq!(take(&place, &bind(&other, Some(&ended), &second)).await, Write::Applied);
}

#[tokio::test]
async fn a_lease_ends_alone_once_and_a_sandbox_goes_as_it_was_read() {
    let place = Place::with_table().await;
    let seeded = place.seed(1).await;
    let free = sandbox_of(&place, &seeded[0].sandbox_id).await;
    let held = lease(&place, "student-1", &free);
    assert_eq!(take(&place, &bind(&free, None, &held)).await, Write::Applied);
    let now = place.clock.now();
    let end = LeaseEnd::by_broker(EndReason::Released, now, now);
    let another = Lease { allocation_id: place.entropy.allocation_id(), ..held.clone() };
    let end_lease = |lease: &Lease| Step::EndLease { lease: lease.clone(), end: end.clone() };
    for (lease, expected) in
        [(&another, Write::Rejected(())), (&held, Write::Applied), (&held, Write::Rejected(()))]
    {
        assert_eq!(take(&place, &end_lease(lease)).await, expected);
    }
    assert_eq!(place.store.leases.get(&held.key).await.expect("read").expect("there").end, Some(end.clone()));

    let stands = sandbox_of(&place, &free.id).await;
    let retire = |sandbox: &Sandbox| Step::Retire {
        sandbox: sandbox.clone(),
        allocation: allocation(&held),
        end: end.clone(),
    };
    let older = Sandbox { version: stands.version - 1, ..stands.clone() };
    for wrong in [&free, &older, &Sandbox { status: Status::Available, ..stands.clone() }] {
        assert_eq!(take(&place, &retire(wrong)).await, Write::Rejected(()));
    }
    assert_eq!(take(&place, &retire(&stands)).await, Write::Applied);
    let gone = sandbox_of(&place, &free.id).await;
    assert_eq!((gone.status, gone.version), (Status::PendingDeletion, stands.version + 1));
    assert_eq!((gone.end_reason, gone.deletion_requested_at), (Some(EndReason::Released), Some(end.at)));
    let due = place
        .store
        .sandboxes
        .due(Status::PendingDeletion, place.store.sandboxes.shard_of(&free.id), now, None)
        .await;
    assert_eq!(due.expect("listed").items.len(), 1, "cleanup finds it");
}

/// Another program's number of shards: it is not open to this one, and nobody paused it.
#[tokio::test]
async fn nothing_is_begun_in_a_pool_that_is_not_closed_when_it_begins() {
    let place = Place::with_table().await;
    place.store.pool.status().await.expect("bound");
    alter(&place, "POOL", "state_shards", AttributeValue::N("9".to_owned())).await;
    let options = ReconcileOptions { apply: true, accept_fewer: false, lab_duration: HOURS };
    let told = reconcile(&place.store, &place.clock, &place.entropy, Vec::new(), None, options).await;
    assert!(matches!(told, Err(ReconcileError::Open)), "{told:?}");
    let stands = place.store.pool.status().await.expect("read");
    assert_eq!(stands, PoolStatus::OtherShards { shards: 9 });
}

#[tokio::test]
async fn beside_what_cannot_be_read_no_step_is_taken() {
    let place = Place::with_table().await;
    let (store, seeded) = (&place.store, place.seed(2).await);
    let [other, wrong] = [&seeded[0], &seeded[1]];
    let held = lease(&place, "student-1", &sandbox_of(&place, &other.sandbox_id).await);
    assert_eq!(
        take(&place, &bind(&sandbox_of(&place, &other.sandbox_id).await, None, &held)).await,
        Write::Applied
    );
    let update = place.aws.dynamodb.update_item().table_name(&place.table);
    let update = update
        .key("PK", AttributeValue::S(format!("SBX#{}", wrong.sandbox_id)))
        .key("SK", AttributeValue::S("META".to_owned()))
        .update_expression("REMOVE external_id");
    update.send().await.expect("UpdateItem");
    assert_eq!(store.pool.pause("op", place.clock.now()).await.expect("asked"), Write::Applied);
    for apply in [false, true] {
        let options = ReconcileOptions { apply, accept_fewer: false, lab_duration: HOURS };
        let report = reconcile(store, &place.clock, &place.entropy, Vec::new(), None, options).await;
        let suspects = report.expect("a report").suspects;
        assert_eq!(suspects.len(), 1, "{apply}: {suspects:?}");
        assert!(suspects[0].contains(wrong.sandbox_id.as_str()), "{suspects:?}");
    }
    let stands = store.pool.status().await.expect("read");
    assert!(matches!(stands, PoolStatus::Paused { .. }), "nothing was begun: {stands:?}");

    // One that cannot be read since it was listed is in the way of its step alone.
    let step = Step::Insert {
        sandbox_id: wrong.sandbox_id.clone(),
        name: wrong.name.clone(),
        external_id: wrong.external_id.clone(),
    };
    assert_eq!(take(&place, &step).await, Write::Rejected(()));
}
