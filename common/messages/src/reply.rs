//! Replies of workers to the API process that waits.

use serde::{Deserialize, Serialize};

use super::{DecodeError, Envelope, OLDEST, decode, encode};
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
    /// A reply to `message`, in the version that its sender wrote: that one it reads.
    pub const fn to<R, B>(message: &Envelope<R, B>, outcome: Outcome) -> Self {
        Self { v: message.v, request_id: message.request_id, outcome, traceparent: None }
    }

    /// A reply to `request_id`, in the version that every reader reads.
    pub const fn new(request_id: RequestId, outcome: Outcome) -> Self {
        Self { v: OLDEST, request_id, outcome, traceparent: None }
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

#[cfg(test)]
mod tests {
    use broker_domain::{ReturnRequest, SandboxId, Times, Timestamp, TrackId};

    use super::*;
    use crate::RequestMessage;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn message(v: u32) -> RequestMessage {
        let now = Timestamp::from_secs(7);
        let asked = ReturnRequest {
            request_id: RequestId::parse(ID).unwrap(),
            track: TrackId::new("t").unwrap(),
            sandbox_id: SandboxId::new("s").unwrap(),
            times: Times { enqueued_at: now, reply_by: now, deadline: now },
        };
        RequestMessage { v, ..RequestMessage::return_sandbox(&asked, "q") }
    }

    #[test]
    fn a_reply_is_in_the_version_of_its_request() {
        for v in [OLDEST, OLDEST + 1, OLDEST + 2] {
            let said: serde_json::Value =
                serde_json::from_str(&Reply::to(&message(v), Outcome::Expired).encode()).unwrap();
            assert_eq!(said["v"], v);
        }
    }

    #[test]
    fn an_outcome_of_a_newer_program_is_unknown_and_is_told_on_as_it_came() {
        let told = format!(
            r#"{{"v":1,"request_id":"{ID}","outcome":{{"outcome":"parked","place":7,"of":{{"line":"a"}}}}}}"#
        );
        let reply = Reply::decode(&told).unwrap();
        assert_eq!(reply.outcome.as_str(), "unknown");
        let again: serde_json::Value = serde_json::from_str(&reply.encode()).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(&told).unwrap());
        for wrong in [r#"{"outcome":"marked"}"#, r#"{}"#, "7", r#""parked""#] {
            let text = format!(r#"{{"v":1,"request_id":"{ID}","outcome":{wrong}}}"#);
            assert!(Reply::decode(&text).is_err(), "{wrong}");
        }
    }
}
