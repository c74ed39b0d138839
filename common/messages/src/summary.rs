//! Summary of a message that may not be one of the broker's.
//!
//! Invariant: any text is accepted and nothing is guessed: a field that is not plainly there is `None`. Validity is decided
//! by decoding, not here.

use std::time::Duration;

use serde_json::Value;

use broker_domain::{MessageSummary, RequestId, TenantName, Timestamp, TrackId};

/// The longest kind or trace context, in characters.
const LONGEST_WORD: usize = 128;
/// A renewed deadline is at least this far away.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(60);

/// The fields of `text` that can be read.
pub fn summarize(text: &str) -> MessageSummary {
    let Ok(message) = serde_json::from_str::<Value>(text) else { return MessageSummary::default() };
    let body = &message["body"];
    let word = |value: &Value| {
        let fits = |word: &&str| {
            (1..=LONGEST_WORD).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
        };
        value.as_str().filter(fits).map(str::to_owned)
    };
    MessageSummary {
        kind: word(&body["kind"]),
        track: body["track_id"].as_str().and_then(|track| TrackId::new(track).ok()),
        request_id: message["request_id"].as_str().and_then(|id| RequestId::parse(id).ok()),
        deadline: message["deadline_ms"].as_u64().map(Timestamp::from_ms),
        trace: word(&message["traceparent"]),
        asynchronous: message["async"].as_bool().unwrap_or(false),
    }
}

/// Whose request `text` is, if it says so.
pub fn tenant_of(text: &str) -> Option<TenantName> {
    let message: Value = serde_json::from_str(text).ok()?;
    TenantName::new(message["tenant"].as_str()?).ok()
}

/// A deadline is not renewed for longer than this after its message was enqueued first: what fences a late message off is
/// kept for 30 days after the end of a lease.
const RENEWABLE_FOR: Duration = Duration::from_secs(14 * 24 * 3_600);

/// `text` with its deadline as far from `now` as it first was from the moment it was enqueued, and that deadline;
/// everything else stays, the moment it was enqueued above all. `None` for what has no such times, and for what was enqueued
/// more than two weeks ago, however often it was sent again since.
pub fn with_renewed_deadline(text: &str, now: Timestamp) -> Option<(String, Timestamp)> {
    let mut message: Value = serde_json::from_str(text).ok()?;
    let ms = |name: &str| message[name].as_u64().map(Timestamp::from_ms);
    let enqueued_at = ms("enqueued_at_ms")?;
    if now.since(enqueued_at) > RENEWABLE_FOR {
        return None;
    }
    let span = ms("deadline_ms")?.since(enqueued_at);
    let deadline = now.plus(span.max(SHORTEST_RENEWAL));
    *message.get_mut("deadline_ms")? = deadline.as_ms().into();
    Some((message.to_string(), deadline))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = r#"{"v":1,"request_id":"01890a5d-ac96-774b-bcce-b302099a8057","reply_to":"q","enqueued_at_ms":1000,
        "reply_by_ms":2000,"deadline_ms":901000,"async":true,"traceparent":"00-1","body":{"kind":"allocate","track_id":"t"}}"#;

    #[test]
    fn what_is_plainly_there_is_told_and_nothing_else() {
        let told = summarize(OURS);
        assert_eq!((told.kind.as_deref(), told.asynchronous), (Some("allocate"), true));
        assert_eq!(told.deadline, Some(Timestamp::from_ms(901_000)));
        assert!(told.track.is_some() && told.request_id.is_some() && told.trace.is_some());
        for strange in [
            "",
            "{",
            "[]",
            "3",
            "{}",
            r#"{"body":{"kind":7,"track_id":"a b"},"request_id":"x","deadline_ms":-1}"#,
        ] {
            assert_eq!(summarize(strange), MessageSummary::default(), "{strange}");
        }
    }

    #[test]
    fn a_renewed_message_is_the_same_but_for_its_deadline() {
        let now = Timestamp::from_ms(5_000_000);
        let (text, deadline) = with_renewed_deadline(OURS, now).unwrap();
        assert_eq!(deadline, now.plus(Duration::from_secs(900)));
        let (mut old, mut new): (Value, Value) =
            (serde_json::from_str(OURS).unwrap(), serde_json::from_str(&text).unwrap());
        assert_eq!(new["deadline_ms"], deadline.as_ms());
        old["deadline_ms"] = Value::Null;
        new["deadline_ms"] = Value::Null;
        assert_eq!(old, new);
        assert!(with_renewed_deadline("not JSON", now).is_none());
        assert!(with_renewed_deadline("{}", now).is_none());
        let last = Timestamp::from_ms(1_000).plus(RENEWABLE_FOR);
        assert!(with_renewed_deadline(OURS, last).is_some());
        assert!(with_renewed_deadline(OURS, last.plus(Duration::from_millis(1))).is_none());
    }

    proptest! {
        #[test]
        fn anything_is_survived(text in any::<String>()) {
            summarize(&text);
            tenant_of(&text);
            with_renewed_deadline(&text, Timestamp::from_ms(1));
        }
    }
}
