//! Fuzz tests of decoding: any text is read or refused with a reason, and what is read is written the same again.
//!
//! Short in `cargo test`; `.ci/fuzz` runs it for minutes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DecodeError, Incoming, MaintenanceMessage, Reply, Request, RequestMessage};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn request() -> Value {
    json!({
        "v": 1, "request_id": ID, "reply_to": "p-replies-01890a5dac96774bbcceb302099a8057",
        "enqueued_at_ms": 1, "reply_by_ms": 2, "deadline_ms": 3, "async": false,
        "body": { "kind": "allocate", "track_id": "t", "fingerprint": "f", "lab_duration_hours": 4 },
    })
}

fn maintenance() -> Value {
    json!({
        "v": 1, "request_id": ID, "enqueued_at_ms": 1, "reply_by_ms": 2, "deadline_ms": 3, "async": true,
        "body": { "kind": "delete", "sandbox_id": "s", "external_id": "e", "version": 1, "slot_ms": 4 },
    })
}

fn run() -> Value {
    let mut run = maintenance();
    run["body"] = json!({ "kind": "run_job", "task": { "job": "purge_stale", "grace_period_hours": 24 } });
    run
}

fn trigger() -> Value {
    json!({ "v": 1, "body": { "kind": "start_job", "job": "sync" } })
}

fn reply() -> Value {
    json!({ "v": 1, "request_id": ID, "outcome": { "outcome": "expired" } })
}

/// Any JSON, some of it as the broker's messages use it.
fn any_json() -> impl Strategy<Value = Value> {
    let words = [
        "allocate",
        "mark_for_deletion",
        "run_job",
        "start_job",
        "delete",
        "sync",
        "bulk_delete",
        "expired",
        "created",
        "dead_lettered",
        ID,
        "t",
        "",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z_:@.-]{0,140}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any_key(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let keys = [
        "v",
        "request_id",
        "reply_to",
        "enqueued_at_ms",
        "reply_by_ms",
        "deadline_ms",
        "async",
        "traceparent",
        "body",
        "kind",
        "track_id",
        "idempotency_key",
        "fingerprint",
        "track_name",
        "prefix",
        "lab_duration_hours",
        "heartbeat_s",
        "tenant",
        "sandbox_id",
        "outcome",
        "reason",
        "name",
        "external_id",
        "allocated_at",
        "expires_at",
        "deletion_requested_at",
        "task",
        "job",
        "grace_period_hours",
        "accept_stale",
        "version",
        "slot_ms",
    ];
    prop_oneof![prop::sample::select(keys.to_vec()).prop_map(str::to_owned), any::<String>()]
}

/// `message` with some of its parts replaced, added or taken away.
fn mutated(message: Value) -> impl Strategy<Value = String> {
    let change = (any_key(), prop::option::of(any_json()), any::<bool>());
    prop::collection::vec(change, 0..4).prop_map(move |changes| {
        let mut message = message.clone();
        for (key, value, deeper) in changes {
            let inner = if message["body"].is_object() { "body" } else { "outcome" };
            let place = if deeper { message.get_mut(inner) } else { Some(&mut message) };
            match (place.and_then(Value::as_object_mut), value) {
                (Some(object), Some(value)) => drop(object.insert(key, value)),
                (Some(object), None) => drop(object.remove(&key)),
                (None, _) => {}
            }
        }
        message.to_string()
    })
}

fn any_text(message: Value) -> impl Strategy<Value = String> {
    let cut = (mutated(message.clone()), any::<prop::sample::Index>())
        .prop_map(|(text, at)| text.chars().take(at.index(text.len())).collect());
    prop_oneof![3 => mutated(message), 1 => cut, 1 => any_json().prop_map(|json| json.to_string()), 1 => any::<String>()]
}

fn is_explained(error: &DecodeError) -> bool {
    ["newer_version", "older_version", "malformed"].contains(&error.reason_code())
        && !error.to_string().is_empty()
}

proptest! {
    #[test]
    fn any_request_is_read_or_refused_with_a_reason(text in any_text(request())) {
        match RequestMessage::decode(&text) {
            Ok(message) => {
                let again = RequestMessage::decode(&message.encode()).unwrap();
                prop_assert_eq!(&again, &message);
                let asked = Request::from(&message);
                prop_assert_eq!(Request::from(&again), asked);
                prop_assert!((1..=128).contains(&message.body.track().as_str().len()));
            }
            Err(error) => prop_assert!(is_explained(&error), "{error:?}"),
        }
    }

    #[test]
    fn any_maintenance_message_is_read_or_refused_with_a_reason(
        text in prop_oneof![any_text(maintenance()), any_text(run()), any_text(trigger())],
    ) {
        match Incoming::decode(&text) {
            Ok(read) => {
                let again = match &read {
                    Incoming::Ours(message) => message.encode(),
                    Incoming::Trigger(trigger) => trigger.encode(),
                };
                prop_assert_eq!(&Incoming::decode(&again).unwrap(), &read);
                prop_assert!(RequestMessage::decode(&text).is_err(), "each queue has its own kinds");
                prop_assert_eq!(MaintenanceMessage::decode(&text).is_ok(), matches!(read, Incoming::Ours(_)));
            }
            Err(error) => prop_assert!(is_explained(&error), "{error:?}"),
        }
    }

    #[test]
    fn any_reply_is_read_or_refused_with_a_reason(text in any_text(reply())) {
        match Reply::decode(&text) {
            Ok(reply) => prop_assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply),
            Err(error) => prop_assert!(is_explained(&error), "{error:?}"),
        }
    }

    #[test]
    fn a_newer_version_is_told_from_a_malformed_message_whatever_else_it_holds(v in 2_u32.., body in any_json()) {
        let text = json!({ "v": v, "body": body }).to_string();
        let newer = matches!(RequestMessage::decode(&text), Err(DecodeError::NewerVersion { found }) if found == v);
        prop_assert!(newer, "{}", text);
    }
}
