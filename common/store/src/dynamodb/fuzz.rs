//! Fuzz tests of reading items: any item is read or refused by name, and what is read was written so.
//!
//! Short in `cargo test`; `.ci/fuzz` runs it for minutes.

use aws_sdk_dynamodb::types::AttributeValue;
use proptest::prelude::*;
use uuid::Uuid;

use super::attributes::{self as a, Item};
use super::keys::{PK, SK, STATE_KEY, STATE_SHARD};
use super::{foreign, n, records, s};
use crate::PageKey;
use broker_domain::{
    Allocation, AllocationId, EndReason, ExternalId, Fingerprint, ForeignSandbox, Grant, IdempotencyKey,
    Lease, LeaseEnd, LeaseKey, Limit, NamePrefix, Outcome, Permit, PersistedRequest, ProviderAttributes,
    RequestId, RequestState, SandboxId, SandboxName, Status, Subject, TenantName, Timestamp, TrackId,
};

const NAMES: [&str; 30] = [
    PK,
    SK,
    STATE_SHARD,
    STATE_KEY,
    a::SANDBOX_ID,
    a::NAME,
    a::EXTERNAL_ID,
    a::STATUS,
    a::VERSION,
    a::TRACK,
    a::IDEMPOTENCY_KEY,
    a::ALLOCATION_ID,
    a::TRACK_NAME,
    a::LAB_DURATION_HOURS,
    a::ALLOCATED_AT,
    a::EXPIRES_AT,
    a::DELETION_REQUESTED_AT,
    a::DELETION_RETRY_COUNT,
    a::DELETION_REASON,
    a::DELETION_ERROR,
    a::DELETED_AT,
    a::PERMIT,
    a::CREATED_AT,
    a::REQUEST_ID,
    a::FINGERPRINT,
    a::ENDED_AT,
    a::END_REASON,
    a::FENCE_MS,
    a::OUTCOME,
    a::DEADLINE_MS,
];

fn any_value() -> impl Strategy<Value = AttributeValue> {
    let words = [
        "available",
        "allocated",
        "deleted",
        "marked",
        "SBX#a",
        "t",
        "",
        "000000000007",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        r#"{"outcome":"expired"}"#,
    ];
    prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(s),
        any::<String>().prop_map(s),
        any::<u64>().prop_map(n),
        (0..9_u8).prop_map(n),
        any::<f64>().prop_map(n),
        any::<i64>().prop_map(n),
        Just(AttributeValue::Null(true)),
        any::<bool>().prop_map(AttributeValue::Bool),
        Just(AttributeValue::L(Vec::new())),
    ]
}

fn any_item() -> impl Strategy<Value = Item> {
    let attribute = (prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), any_value());
    prop::collection::hash_map(attribute.0, attribute.1, 0..26)
}

fn foreign(item: &Item) -> Option<ForeignSandbox> {
    foreign::read(item, broker_domain::LabDuration::nearest(4), Timestamp::from_secs(1_000))
        .ok()
        .map(|(sandbox, _)| sandbox)
}

proptest! {
    #[test]
    fn whatever_lies_in_the_table_is_read_or_refused(item in any_item()) {
        let sandbox = a::read_sandbox(&item);
        // An item with an allocation has all of it, and nothing was made up.
        if let Ok(sandbox) = &sandbox {
            prop_assert_eq!(sandbox.allocation.is_some(), item.contains_key(a::ALLOCATION_ID));
            prop_assert_eq!(Some(&s(sandbox.id.as_str())), item.get(a::SANDBOX_ID));
        }
        let record = records::read_record(&item);
        prop_assert!(record.is_err() || sandbox.is_ok());
        for refused in [sandbox.err(), record.err(), a::read_lease(&item).err(), a::read_request(&item).err()] {
            prop_assert!(refused.is_none_or(|error| !error.is_retryable()), "asking again does not help");
        }
        let _ = (a::read_candidate(&item), records::read_tick(&item), records::read_instance(&item), records::read_run(&item));
    }

    #[test]
    fn whatever_another_tool_wrote_no_trace_of_an_owner_is_lost(item in any_item()) {
        if let Some(sandbox) = foreign(&item) {
            let says = |name: &str| {
                item.get(name).is_some_and(|value| {
                    let empty = value.as_s().is_ok_and(String::is_empty) || value.as_n().is_ok_and(|n| n.starts_with('0'));
                    !empty && !value.is_null()
                })
            };
            prop_assert_eq!(sandbox.used, foreign::TRACES.into_iter().any(says));
            prop_assert_eq!(sandbox.tenancy.is_some(), says(a::TRACK));
        }
    }

    #[test]
    fn a_live_lease_reads_back_as_it_was_written(lease in any_lease()) {
        let live = Lease { end: None, ..lease };
        let item = a::write_live_lease(&live);
        prop_assert!(!item.contains_key(a::TTL), "a live lease has no ttl");
        prop_assert_eq!(a::read_lease(&item).unwrap(), live);
    }

    #[test]
    fn a_request_reads_back_as_it_was_written(
        lease in any_lease(), asynchronous in any::<bool>(), message in prop::option::of(any::<String>()),
        ended in any::<bool>(), deadline_ms in any::<u64>(), of_mark in any::<bool>(),
    ) {
        let state = if ended { RequestState::Ended(Outcome::Created(lease.grant.clone())) } else { RequestState::Queued };
        let record = PersistedRequest {
            request_id: lease.request_id,
            track: lease.key.track.clone(),
            subject: match of_mark {
                true => Subject::Return(lease.grant.sandbox_id.clone()),
                false => Subject::Allocate(lease.key.clone()),
            },
            asynchronous,
            message: message.filter(|_| !ended),
            state,
            parked: None,
            created_at: lease.grant.allocated_at,
            deadline: Timestamp::from_ms(deadline_ms),
        };
        let item = a::write_request(&record, Timestamp::from_secs(1));
        prop_assert_eq!(a::read_request(&item).unwrap(), record);
    }

    #[test]
    fn a_cursor_is_ours_or_none(text in any::<String>(), pk in "[ -~ä]{1,60}", sk in "[!-~]{1,60}") {
        if let Some(key) = PageKey::parse(&text) {
            prop_assert_eq!(key.encode(), text.to_ascii_lowercase());
        }
        let key = [(PK.to_owned(), s(pk)), (SK.to_owned(), s(sk))];
        let key = PageKey(key.into());
        let text = key.encode();
        prop_assert_eq!(PageKey::parse(&text), Some(key));
        for cut in 0..text.len() {
            if let Some(other) = PageKey::parse(&text[..cut]) {
                prop_assert_eq!(other.encode(), &text[..cut]);
            }
        }
    }

    #[test]
    fn a_sandbox_has_one_shard_of_those_there_are(id in any_id(), shards in 1..50_u8) {
        let id = broker_domain::SandboxId::new(id).unwrap();
        let shard = super::keys::shard_of(&id, shards);
        prop_assert!(shard < shards);
        prop_assert_eq!(super::keys::shard_of(&id, 1), 0);
        let key = super::keys::state_shard(Status::Available, shard);
        prop_assert_eq!(key, format!("available#{shard:02}"));
    }
}

fn any_end_reason() -> impl Strategy<Value = EndReason> {
    prop::sample::select(vec![
        EndReason::Returned,
        EndReason::Expired,
        EndReason::Abandoned,
        EndReason::Released,
    ])
}

/// Any text of a valid id.
fn any_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._:@-]{1,128}"
}

/// Seconds since the epoch.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_u64).prop_map(Timestamp::from_secs)
}

prop_compose! {
    fn any_permit()(tenant in any_id(), prefix in "[ -~]{1,60}", slot in any::<u32>()) -> Permit {
        let (tenant, prefix) = (TenantName::new(tenant).unwrap(), NamePrefix::new(prefix).unwrap());
        Permit { limit: Limit { tenant, prefix }, slot }
    }
}

prop_compose! {
    fn any_allocation()(
        id in any::<u128>(), track in any_id(), key in any_id(), allocated_at in any_time(), expires_at in any_time(),
        track_name in prop::option::of(any_id()), permit in prop::option::of(any_permit()),
    ) -> Allocation {
        Allocation {
            id: AllocationId::from_uuid(Uuid::from_u128(id)),
            lease_key: LeaseKey { track: TrackId::new(track).unwrap(), key: IdempotencyKey::new(key).unwrap() },
            track_name: track_name.map(|name| broker_domain::TrackName::new(name).unwrap()),
            allocated_at,
            expires_at,
            permit,
        }
    }
}

prop_compose! {
    fn any_lease()(
        allocation in any_allocation(), request in any::<u128>(), sandbox in any_id(), name in "[ -~äß]{1,60}",
        external_id in "[ -~]{1,60}", fingerprint in "[0-9a-f]{32}",
        end in prop::option::of((any_time(), any_end_reason(), any::<u64>())), hours in prop::option::of(1..=168_u64),
        heartbeat in prop::option::of(30..=3_600_u64), attributes in prop::collection::btree_map("[a-z_]{1,20}", "[ -~äß]{0,40}", 0..4), tenant in prop::option::of("[a-z0-9_-]{1,60}"),
    ) -> Lease {
        Lease {
            key: allocation.lease_key,
            request_id: RequestId::from_uuid(Uuid::from_u128(request)),
            allocation_id: allocation.id,
            fingerprint: Fingerprint::from_stored(fingerprint),
            grant: Grant {
                sandbox_id: SandboxId::new(sandbox).unwrap(),
                name: SandboxName::new(name).unwrap(),
                external_id: ExternalId::new(external_id).unwrap(),
                track_name: allocation.track_name,
                allocated_at: allocation.allocated_at,
                expires_at: allocation.expires_at,
                attributes: ProviderAttributes::new(attributes.into_iter().map(|(name, text)| (name, text.into())).collect()).unwrap(),
            },
            term: broker_domain::Term {
                hours: hours.map(|hours| broker_domain::LabDuration::new(hours).unwrap()),
                heartbeat: heartbeat.map(|seconds| broker_domain::Heartbeat::new(seconds).unwrap()),
            },
            tenant: tenant.map(|tenant| TenantName::new(tenant).unwrap()),
            permit: allocation.permit,
            end: end.map(|(at, reason, fence)| LeaseEnd { at, reason, fence: Timestamp::from_ms(fence) }),
        }
    }
}
