//! Scheduled trigger: the one message that an external scheduler may send, to start a job.
//!
//! Invariant: it names only the job, so that a scheduler without ids and clocks (EventBridge Scheduler, a cron line) sends
//! the same text forever. SQS distinguishes the triggers: `SentTimestamp` stays through redelivery and differs for every
//! send. Options of a job are for operators only.

use serde::{Deserialize, Serialize};

use super::envelope::{LONGEST_PLAN, must_be_within};
use super::maintenance::{MaintenanceMessage, MaintenanceTask};
use super::{DecodeError, OLDEST, decode, encode};
use broker_domain::{Job, Timestamp};

/// Starts a job: `{"v":1,"body":{"kind":"start_job","job":"sync"}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledTrigger {
    v: u32,
    body: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Start {
    StartJob { job: Job },
}

impl ScheduledTrigger {
    /// The word in logs, metrics and dead letters.
    pub const KIND: &str = "start_job";

    /// The trigger for `job`.
    pub const fn of(job: Job) -> Self {
        Self { v: OLDEST, body: Start::StartJob { job } }
    }

    /// The job.
    pub const fn job(self) -> Job {
        let Start::StartJob { job } = self.body;
        job
    }

    /// As JSON text.
    pub fn encode(&self) -> String {
        encode(self)
    }
}

/// A message of the maintenance queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message of the broker.
    Ours(Box<MaintenanceMessage>),
    /// A message of an external scheduler.
    Trigger(ScheduledTrigger),
}

#[derive(Deserialize)]
struct KindOnly {
    body: Kind,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

impl Incoming {
    /// From JSON text, whenever it was sent.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        if decode::<KindOnly>(text).is_ok_and(|told| told.body.kind == ScheduledTrigger::KIND) {
            return decode(text).map(Self::Trigger);
        }
        MaintenanceMessage::decode(text).map(|message| Self::Ours(Box::new(message)))
    }

    /// From the JSON text of a message that SQS took no later than `taken_at`.
    pub fn decode_taken(text: &str, taken_at: Timestamp) -> Result<Self, DecodeError> {
        match Self::decode(text)? {
            Self::Trigger(trigger) => Ok(Self::Trigger(trigger)),
            Self::Ours(_) => {
                let message = MaintenanceMessage::decode_taken(text, taken_at)?;
                if let MaintenanceTask::Delete { slot_ms, .. } = message.body {
                    let slot = Timestamp::from_ms(slot_ms);
                    must_be_within("slot_ms", slot, taken_at, LONGEST_PLAN)?;
                }
                Ok(Self::Ours(Box::new(message)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::RequestMessage;

    /// The text that Terraform renders; `infra/terraform/tests` compares it with the same file.
    const RENDERED: &str = include_str!("../../../infra/terraform/firings.json");

    #[test]
    fn what_terraform_renders_for_each_job_starts_that_job() {
        let rendered: BTreeMap<String, String> = serde_json::from_str(RENDERED).unwrap();
        let sent: Vec<_> = Job::ALL.into_iter().filter(|job| job.is_sent()).collect();
        assert_eq!(rendered.len(), sent.len());
        for job in sent {
            let text = &rendered[job.as_str()];
            assert_eq!(
                Incoming::decode(text).unwrap(),
                Incoming::Trigger(ScheduledTrigger::of(job)),
                "{text}"
            );
            assert_eq!(
                serde_json::from_str::<ScheduledTrigger>(&ScheduledTrigger::of(job).encode()).unwrap(),
                ScheduledTrigger::of(job)
            );
        }
    }

    #[test]
    fn a_scheduler_names_a_job_and_nothing_else() {
        let refused = |text: &str| match Incoming::decode(text) {
            Err(DecodeError::Malformed(error)) => error.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        let start = |body: &str| format!(r#"{{"v":1,"body":{{"kind":"start_job"{body}}}}}"#);
        assert!(refused(&start(r#","job":"make_coffee""#)).contains("make_coffee"));
        assert!(refused(&start("")).contains("job"));
        assert!(refused(&start(r#","job":"bulk_delete""#)).contains("bulk_delete"));
        assert!(refused(&start(r#","job":"sync","accept_stale":true"#)).contains("accept_stale"));
        let timed = r#"{"v":1,"deadline_ms":3,"body":{"kind":"start_job","job":"sync"}}"#;
        assert!(refused(timed).contains("deadline_ms"));
        let newer = ScheduledTrigger::of(Job::Sync).encode().replace(r#""v":1"#, r#""v":3"#);
        assert!(matches!(Incoming::decode(&newer), Err(DecodeError::NewerVersion { found: 3 })));
        assert!(RequestMessage::decode(&ScheduledTrigger::of(Job::Sync).encode()).is_err());
    }
}
