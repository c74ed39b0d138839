//! Messages of the maintenance queue: runs of jobs, and deletions at the provider.

use serde::{Deserialize, Serialize};

use super::{Envelope, OLDEST};
use broker_domain::{ExternalId, RequestId, SandboxId, Task, Times, Timestamp};

/// One message of the maintenance queue; `reply_to` is set only if a process waits. Each queue refuses the other's messages.
/// A deletion has no deadline of its own: the table says whether it is still wanted.
pub type MaintenanceMessage = Envelope<Option<String>, MaintenanceTask>;

/// A maintenance task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MaintenanceTask {
    /// Run a job.
    RunJob {
        /// The job with its options.
        task: Task,
    },
    /// Delete a sandbox at the provider.
    Delete {
        /// The sandbox.
        sandbox_id: SandboxId,
        /// The provider's id, read together with the version.
        external_id: ExternalId,
        /// The version that planning left; at any other the plan is void.
        version: u64,
        /// Its slot of the provider's rate.
        slot_ms: u64,
    },
}

impl MaintenanceTask {
    /// The word in logs, metrics and dead letters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::RunJob { .. } => "run_job",
            Self::Delete { .. } => "delete",
        }
    }
}

impl MaintenanceMessage {
    /// A run without a waiting caller.
    pub fn run(request_id: RequestId, task: Task, times: Times) -> Self {
        Self::around(OLDEST, MaintenanceTask::RunJob { task }, request_id, None, times, true)
    }

    /// A run whose report goes to `reply_to` if it ends in time, and is stored in any case.
    pub fn run_for(request_id: RequestId, task: Task, times: Times, reply_to: impl Into<String>) -> Self {
        Self::around(
            OLDEST,
            MaintenanceTask::RunJob { task },
            request_id,
            Some(reply_to.into()),
            times,
            false,
        )
    }

    /// A deletion in the slot `slot`.
    pub fn delete(
        request_id: RequestId,
        now: Timestamp,
        slot: Timestamp,
        sandbox_id: SandboxId,
        external_id: ExternalId,
        version: u64,
    ) -> Self {
        let times = Times { enqueued_at: now, reply_by: now, deadline: slot };
        let body = MaintenanceTask::Delete { sandbox_id, external_id, version, slot_ms: slot.as_ms() };
        Self::around(OLDEST, body, request_id, None, times, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeError, RequestMessage};

    fn message() -> MaintenanceMessage {
        let now = Timestamp::from_secs(7);
        let id = RequestId::from_uuid(uuid::Uuid::from_u128(7));
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
    fn a_deletion_whose_turn_is_never_and_a_grace_of_centuries_are_refused() {
        let now = Timestamp::from_secs(7_000_000);
        let (sandbox, external) = (SandboxId::new("s").unwrap(), ExternalId::new("e").unwrap());
        let id = message().request_id;
        let of =
            |slot| MaintenanceMessage::delete(id, now, slot, sandbox.clone(), external.clone(), 1).encode();
        let soon = now.plus(std::time::Duration::from_secs(600));
        assert!(crate::Incoming::decode_taken(&of(soon), now).is_ok());
        assert!(crate::Incoming::decode_taken(&of(Timestamp::from_ms(u64::MAX)), now).is_err());
        let never = message().encode().replace(r#""grace_period_hours":24"#, r#""grace_period_hours":8785"#);
        let error = MaintenanceMessage::decode(&never).unwrap_err().to_string();
        assert!(error.contains("grace_period_hours is at most 8784"), "{error}");
    }

    #[test]
    fn a_newer_message_is_told_from_a_bad_one() {
        let newer = message().encode().replacen(r#""v":1"#, r#""v":3"#, 1);
        assert!(matches!(MaintenanceMessage::decode(&newer), Err(DecodeError::NewerVersion { found: 3 })));
        let unknown = message().encode().replace("purge_stale", "make_coffee");
        assert!(matches!(MaintenanceMessage::decode(&unknown), Err(DecodeError::Malformed(_))));
    }
}
