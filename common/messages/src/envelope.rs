//! The envelope of a message to the workers: request id, reply queue, times and trace context around the body.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DecodeError, decode, encode};
use broker_domain::{MAX_SKEW_MS, RequestId, TenantName, Times, Timestamp};

/// Two clocks that are each as far off as a process may work with.
const CLOCKS_DIFFER: Duration = Duration::from_millis(2 * MAX_SKEW_MS.unsigned_abs());
/// The furthest that a message may plan ahead: a day, and what a process may be late.
pub(super) const LONGEST_PLAN: Duration = Duration::from_secs(25 * 3_600);

/// That a time of a message, called `field`, is at most `most` after SQS took it.
pub(super) fn must_be_within(
    field: &'static str,
    time: Timestamp,
    taken_at: Timestamp,
    most: Duration,
) -> Result<(), DecodeError> {
    let ahead = time.since(taken_at);
    if ahead <= most {
        return Ok(());
    }
    Err(DecodeError::Untimely { field, ahead_s: ahead.as_secs(), most_s: most.as_secs() })
}

/// A message to the workers with the body `B`; `R` is the type of `reply_to`.
///
/// `enqueued_at_ms` keeps its value through redelivery and replay. `reply_to` is a queue name that the reader must check
/// against `{prefix}-replies-{uuid}` before it sends anything there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<R, B> {
    pub(super) v: u32,
    /// Correlates the reply.
    pub request_id: RequestId,
    /// The name of the reply queue of the process that waits.
    pub reply_to: R,
    /// When it was enqueued first.
    pub enqueued_at_ms: u64,
    /// Until when a caller waits for the reply.
    pub reply_by_ms: u64,
    /// The deadline: after it nothing is claimed and no run is begun.
    pub deadline_ms: u64,
    /// Whether no caller waits and the outcome is stored.
    #[serde(rename = "async")]
    pub asynchronous: bool,
    /// W3C trace context of the HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Tenant of the request; a message of an older version names none, nor does a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// The request or the task.
    pub body: B,
}

impl<R, B> Envelope<R, B> {
    pub(super) const fn around(
        v: u32,
        body: B,
        request_id: RequestId,
        reply_to: R,
        times: Times,
        asynchronous: bool,
    ) -> Self {
        Self {
            v,
            request_id,
            reply_to,
            enqueued_at_ms: times.enqueued_at.as_ms(),
            reply_by_ms: times.reply_by.as_ms(),
            deadline_ms: times.deadline.as_ms(),
            asynchronous,
            traceparent: None,
            tenant: None,
            body,
        }
    }

    /// The same message with the sender's trace context.
    pub fn traced(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
    }

    /// The same message as `tenant`'s.
    pub fn of_tenant(self, tenant: TenantName) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// The times it carries.
    pub const fn times(&self) -> Times {
        Times {
            enqueued_at: Timestamp::from_ms(self.enqueued_at_ms),
            reply_by: Timestamp::from_ms(self.reply_by_ms),
            deadline: Timestamp::from_ms(self.deadline_ms),
        }
    }
}

impl<R: Serialize, B: Serialize> Envelope<R, B> {
    /// As JSON text.
    pub fn encode(&self) -> String {
        encode(self)
    }
}

impl<R: DeserializeOwned, B: DeserializeOwned> Envelope<R, B> {
    /// From JSON text, whenever it was sent.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        decode(text)
    }

    /// From the JSON text of a message that SQS took no later than `taken_at`.
    ///
    /// A time of the future would fence off the owner's own requests (`enqueued_at_ms`) or keep a request for ever
    /// (`reply_by_ms`, `deadline_ms`). One of the past only says less.
    pub fn decode_taken(text: &str, taken_at: Timestamp) -> Result<Self, DecodeError> {
        let message = Self::decode(text)?;
        let Times { enqueued_at, reply_by, deadline } = message.times();
        must_be_within("enqueued_at_ms", enqueued_at, taken_at, CLOCKS_DIFFER)?;
        must_be_within("reply_by_ms", reply_by, taken_at, LONGEST_PLAN)?;
        must_be_within("deadline_ms", deadline, taken_at, LONGEST_PLAN)?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestMessage;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn taken(
        enqueued: u64,
        reply_by: u64,
        deadline: u64,
        taken_at: u64,
    ) -> Result<RequestMessage, DecodeError> {
        let text = format!(
            r#"{{"v":1,"request_id":"{ID}","reply_to":"q","enqueued_at_ms":{enqueued},"reply_by_ms":{reply_by},
            "deadline_ms":{deadline},"async":false,
            "body":{{"kind":"mark_for_deletion","track_id":"t","sandbox_id":"s"}}}}"#
        );
        RequestMessage::decode_taken(&text, Timestamp::from_ms(taken_at))
    }

    #[test]
    fn a_time_that_is_later_than_any_of_ours_is_named() {
        let (now, day) = (1_000_000_000_u64, 25 * 3_600_000);
        assert!(taken(now, now + 10_000, now + 60_000, now).is_ok());
        assert!(taken(now + 4_000, now + day, now + day, now).is_ok(), "clocks may differ");
        assert!(taken(0, 0, 0, now).is_ok(), "a message may be old");
        let refused = [
            (taken(now + 4_001, now, now, now), "enqueued_at_ms"),
            (taken(now, now + day + 1, now, now), "reply_by_ms"),
            (taken(now, now, u64::MAX, now), "deadline_ms"),
        ];
        for (message, field) in refused {
            let error = message.unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
            assert_eq!(error.reason_code(), "malformed");
        }
    }
}
