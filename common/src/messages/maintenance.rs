//! What the maintenance queue carries: runs of jobs, and deletions at the provider.

use serde::{Deserialize, Serialize};

use super::{DecodeError, VERSION, decode, encode};
use crate::domain::{ExternalId, RequestId, SandboxId, Task, Times, Timestamp};

/// One message of the maintenance queue. A message of the requests queue is none, nor the other way round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceMessage {
    v: u32,
    /// Of the run, or of the deletion.
    pub request_id: RequestId,
    /// The reply queue of the process that waits, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// When it was sent first.
    pub enqueued_at_ms: u64,
    /// Until when a caller waits for the reply.
    pub reply_by_ms: u64,
    /// After this a run is not begun; a deletion has none: the table says whether it is still wanted.
    pub deadline_ms: u64,
    /// Whether nobody waits and the report is stored.
    #[serde(rename = "async")]
    pub asynchronous: bool,
    /// W3C trace context of the HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What is to be done.
    pub body: Chore,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Chore {
    /// Run a job.
    RunJob {
        /// Which.
        task: Task,
    },
    /// Delete a sandbox at the provider.
    Delete {
        /// Which.
        sandbox_id: SandboxId,
        /// The provider's id, read together with the version.
        external_id: ExternalId,
        /// The version that planning left; at any other the plan is void.
        version: u64,
        /// When its turn is.
        slot_ms: u64,
    },
}

impl Chore {
    /// The word for it in logs, metrics and dead letters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::RunJob { .. } => "run_job",
            Self::Delete { .. } => "delete",
        }
    }
}

impl MaintenanceMessage {
    /// A run that nobody waits for.
    pub fn run(request_id: RequestId, task: Task, times: Times) -> Self {
        Self::new(request_id, times, true, Chore::RunJob { task })
    }

    /// A run whose report goes to `reply_to` if it ends in time, and is stored in any case after that.
    pub fn run_for(request_id: RequestId, task: Task, times: Times, reply_to: impl Into<String>) -> Self {
        let message = Self::new(request_id, times, false, Chore::RunJob { task });
        Self { reply_to: Some(reply_to.into()), ..message }
    }

    /// A deletion whose turn is at `slot`.
    pub fn delete(
        request_id: RequestId,
        now: Timestamp,
        slot: Timestamp,
        sandbox_id: SandboxId,
        external_id: ExternalId,
        version: u64,
    ) -> Self {
        let times = Times { enqueued_at: now, reply_by: now, deadline: slot };
        let body = Chore::Delete { sandbox_id, external_id, version, slot_ms: slot.as_ms() };
        Self::new(request_id, times, true, body)
    }

    const fn new(request_id: RequestId, times: Times, asynchronous: bool, body: Chore) -> Self {
        Self {
            v: VERSION,
            request_id,
            reply_to: None,
            enqueued_at_ms: times.enqueued_at.as_ms(),
            reply_by_ms: times.reply_by.as_ms(),
            deadline_ms: times.deadline.as_ms(),
            asynchronous,
            traceparent: None,
            body,
        }
    }

    /// The times it carries.
    pub const fn times(&self) -> Times {
        Times {
            enqueued_at: Timestamp::from_ms(self.enqueued_at_ms),
            reply_by: Timestamp::from_ms(self.reply_by_ms),
            deadline: Timestamp::from_ms(self.deadline_ms),
        }
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
    use super::*;
    use crate::entropy::Entropy;
    use crate::messages::RequestMessage;

    fn message() -> MaintenanceMessage {
        let now = Timestamp::from_secs(7);
        let id = Entropy::seeded(1).request_id(now);
        let times = Times { enqueued_at: now, reply_by: now, deadline: now };
        MaintenanceMessage::run(id, Task::PurgeStale { grace_period_hours: 24 }, times)
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let text = message().encode();
        assert!(
            text.contains(r#""kind":"run_job","task":{"job":"purge_stale","grace_period_hours":24}"#),
            "{text}"
        );
        assert_eq!(MaintenanceMessage::decode(&text).unwrap(), message());
        assert!(RequestMessage::decode(&text).is_err(), "the requests queue takes only its own kinds");
    }

    #[test]
    fn a_newer_message_is_told_from_a_bad_one() {
        let newer = message().encode().replacen(r#""v":1"#, r#""v":2"#, 1);
        assert!(matches!(MaintenanceMessage::decode(&newer), Err(DecodeError::NewerVersion { found: 2 })));
        let unknown = message().encode().replace("purge_stale", "make_coffee");
        assert!(matches!(MaintenanceMessage::decode(&unknown), Err(DecodeError::Malformed(_))));
    }
}
