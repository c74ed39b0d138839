//! Questions about dead letters to the table, and its answers.

use uuid::Uuid;

use broker_domain::{DeadLetter, DeadLetterId, JobReport, RequestId, Timestamp};

/// Whether a letter is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was written.
    New,
    /// It was kept before: by another worker, or before this delivery was repeated.
    Before,
}

/// What waits for the end of a message, and is told that it died in the same write that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingRecord {
    /// The record of an asynchronous request.
    Request(RequestId),
    /// The record of a run that somebody asked for, with the report that tells.
    Run(RequestId, JobReport),
}

/// What waits again once a letter is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// The record of an asynchronous request, with its message and deadline as they are sent.
    Request {
        /// Which.
        id: RequestId,
        /// What is sent.
        message: String,
        /// The deadline it carries.
        deadline: Timestamp,
    },
    /// The record of a run.
    Run(RequestId),
}

/// Who replays or discards, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The action: one replay or discard of any number of letters.
    pub action: Uuid,
    /// Who, for the audit.
    pub by: String,
    /// Now.
    pub at: Timestamp,
}

/// Letters of one partition, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterPage {
    /// Whole letters.
    pub letters: Vec<DeadLetter>,
    /// What is wrong with items that are none, though their keys say so.
    pub unreadable: Vec<String>,
    /// How far it was read; `None`: to the end.
    pub read_to: Option<DeadLetterId>,
}
