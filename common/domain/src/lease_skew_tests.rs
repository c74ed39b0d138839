//! Tests of the fence with two clocks that differ within the trusted bound.

use proptest::prelude::*;

use super::*;
use crate::{ExternalId, IdempotencyKey, SandboxId, SandboxName, Times, TrackId};

fn key() -> LeaseKey {
    LeaseKey { track: TrackId::new("t").unwrap(), key: IdempotencyKey::new("t").unwrap() }
}

/// A lease that a mark enqueued at `marked` ended.
fn marked(marked: Timestamp) -> Lease {
    Lease {
        key: key(),
        request_id: RequestId::from_uuid(uuid::Uuid::from_u128(1)),
        allocation_id: AllocationId::from_uuid(uuid::Uuid::from_u128(3)),
        fingerprint: Fingerprint::of([]),
        grant: Grant {
            sandbox_id: SandboxId::new("s").unwrap(),
            name: SandboxName::new("s").unwrap(),
            external_id: ExternalId::new("s").unwrap(),
            track_name: None,
            allocated_at: Timestamp::from_secs(1),
            expires_at: Timestamp::from_secs(1_000_000),
            attributes: broker_domain::ProviderAttributes::default(),
        },
        term: broker_domain::Term::default(),
        tenant: None,
        permit: None,
        end: Some(LeaseEnd::by_request(EndReason::Returned, marked, marked, Timestamp::from_secs(1_000_000))),
    }
}

fn ask(enqueued_at: Timestamp) -> AllocateRequest {
    let deadline = enqueued_at.plus(Duration::from_secs(60));
    AllocateRequest {
        request_id: RequestId::from_uuid(uuid::Uuid::from_u128(2)),
        lease_key: key(),
        key_is_explicit: false,
        fingerprint: Fingerprint::of([]),
        track_name: None,
        prefix: None,
        lab_duration: broker_domain::LabDuration::SHORTEST,
        heartbeat: None,
        may_wait: false,
        limited: false,
        tenant: None,
        asynchronous: false,
        times: Times { enqueued_at, reply_by: deadline, deadline },
    }
}

/// How far off a trusted clock is: the extremes are what the margin is about.
fn any_skew() -> impl Strategy<Value = i64> {
    prop_oneof![Just(-MAX_SKEW_MS), Just(MAX_SKEW_MS), -MAX_SKEW_MS..=MAX_SKEW_MS]
}

proptest! {
    #[test]
    fn two_trusted_clocks_cost_a_repeat_at_most_and_an_old_copy_never_claims(
        skew_of_mark in any_skew(),
        skew_of_ask in any_skew(),
        later_ms in -8_000_i64..8_000,
    ) {
        let margin = 2_000;
        let at = |ms: i64| Timestamp::from_secs(100).plus(Duration::from_millis(ms.unsigned_abs()));
        // The mark at 30 s of true time, the allocate so much later (or earlier), each by its own clock.
        let lease = marked(at(30_000 + skew_of_mark));
        let ask = ask(at(30_000 + later_ms + skew_of_ask));
        let verdict = judge(Some(&lease), &ask, at(60_000));
        if later_ms > 2 * MAX_SKEW_MS - margin {
            prop_assert_eq!(verdict, LeaseVerdict::Free);
        } else if later_ms < -(2 * MAX_SKEW_MS + margin) {
            prop_assert_eq!(verdict, LeaseVerdict::Superseded);
        } else {
            prop_assert!(matches!(verdict, LeaseVerdict::Free | LeaseVerdict::Superseded));
        }
    }
}
