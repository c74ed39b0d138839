//! The envelope of a message to the workers: request id, reply queue, times and trace context around the body.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DecodeError, VERSION, decode, encode};
use broker_domain::{RequestId, Times, Timestamp};

/// A message to the workers with the body `B`; `R` is the type of `reply_to`.
///
/// `enqueued_at_ms` keeps its value through redelivery and replay. `reply_to` is a queue name that the reader must check
/// against `{prefix}-replies-{uuid}` before it sends anything there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<R, B> {
    v: u32,
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
    /// The request or the task.
    pub body: B,
}

impl<R, B> Envelope<R, B> {
    pub(super) const fn around(
        body: B,
        request_id: RequestId,
        reply_to: R,
        times: Times,
        asynchronous: bool,
    ) -> Self {
        Self {
            v: VERSION,
            request_id,
            reply_to,
            enqueued_at_ms: times.enqueued_at.as_ms(),
            reply_by_ms: times.reply_by.as_ms(),
            deadline_ms: times.deadline.as_ms(),
            asynchronous,
            traceparent: None,
            body,
        }
    }

    /// The same message with the sender's trace context.
    pub fn traced(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
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
    /// From JSON text.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        decode(text)
    }
}
