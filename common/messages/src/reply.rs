//! Replies of workers to the API process that waits.

use serde::{Deserialize, Serialize};

use super::{DecodeError, VERSION, decode, encode};
use broker_domain::{Outcome, RequestId};

/// One message of a reply queue. A reply is a wake-up: its outcome is stored already, or the caller may safely repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    v: u32,
    /// The request it answers.
    pub request_id: RequestId,
    /// Its outcome.
    pub outcome: Outcome,
    /// W3C trace context of the sending span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Reply {
    /// A reply to `request_id`.
    pub const fn new(request_id: RequestId, outcome: Outcome) -> Self {
        Self { v: VERSION, request_id, outcome, traceparent: None }
    }

    /// The same reply with the sender's trace context.
    pub fn traced(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
    }

    /// As JSON text.
    pub fn encode(&self) -> String {
        encode(self)
    }

    /// From JSON text.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        decode(text)
    }
}
