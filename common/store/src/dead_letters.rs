//! Types of the dead letter operations on the table.

use uuid::Uuid;

use broker_domain::{DeadLetter, JobReport, RequestId, ReturnRequest, Timestamp};

/// The record that waits for a message; the write that keeps the dead letter fails the record, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingRecord {
    /// The record of an asynchronous request, or of a return that was recorded.
    Request(RequestId),
    /// The record of a return, whether or not it is written by now: its caller's wait may not be over yet.
    Return(ReturnRequest),
    /// The record of a run that was asked for, with its report.
    Run(RequestId, JobReport),
}

/// The record that waits again once a dead letter is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// The record of an asynchronous request or of a return, with its message and deadline as they are sent.
    Request {
        /// Its id.
        id: RequestId,
        /// The message.
        message: String,
        /// Its deadline.
        deadline: Timestamp,
    },
    /// The record of a run.
    Run(RequestId),
}

/// The operator of an action, and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The action: one replay or discard of any number of dead letters.
    pub action: Uuid,
    /// The operator, for the audit.
    pub by: String,
    /// Now.
    pub at: Timestamp,
}

/// The order of a list of dead letters: by when their messages were first sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterOrder {
    /// The oldest first.
    OldestFirst,
    /// The newest first.
    NewestFirst,
}

/// Dead letters of one partition, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterRows {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// The errors of items that cannot be read.
    pub unreadable: Vec<String>,
}
