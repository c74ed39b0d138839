//! Faults of a call.

use std::time::Duration;

/// A fault. Each happens to calls of AWS, sooner or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection breaks before the service sees the call.
    Reset,
    /// The call takes effect, then the connection breaks: its result is unknown.
    LoseResponse,
    /// The call takes effect, and its answer comes too late for any attempt's timeout.
    LateResponse,
    /// The service is asked too much.
    Throttle,
    /// Another transaction holds an item (`TransactionConflict`, which the embedded endpoint never says). For a
    /// transaction: it is cancelled for that reason.
    Conflict,
    /// 500, without an effect.
    ServerError,
    /// 500, after the effect.
    ServerErrorAfterEffect,
    /// The message is sent twice.
    Duplicate,
    /// Messages overtake each other: those that are sent arrive later by different times, those received are shuffled.
    Reorder,
    /// One entry of the batch is reported as failed, although it took effect.
    FailEntry,
    /// The queue does not exist: it was deleted, or it is so new that not all of SQS knows it.
    UnknownQueue,
    /// The service does not accept the call, in this code: credentials, rights, a validation. Without an effect.
    Refuse(&'static str),
    /// SQS does not take the entries of a batch, in this code, and says that it is the sender's fault. Without an effect.
    RefuseEntries(&'static str),
}

/// Longer than an attempt of any call but a long poll.
pub(super) const TOO_LATE: Duration = Duration::from_millis(2_500);

/// The operations on messages that come in batches.
const BATCHES: [&str; 3] = ["SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"];
/// The operations that another transaction can stand in the way of.
const WRITES: [&str; 6] =
    ["TransactWriteItems", "TransactGetItems", "PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"];

impl Fault {
    /// The word for it in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::LoseResponse => "lost response",
            Self::LateResponse => "late response",
            Self::Throttle => "throttled",
            Self::Conflict => "transaction conflict",
            Self::ServerError => "server error",
            Self::ServerErrorAfterEffect => "server error after the effect",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reordered",
            Self::FailEntry => "failed entry",
            Self::UnknownQueue => "unknown queue",
            Self::Refuse(code) | Self::RefuseEntries(code) => code,
        }
    }

    /// Whether calls of `operation` can suffer it.
    pub(super) fn can_be_done_to(self, operation: &str) -> bool {
        match self {
            Self::Reset
            | Self::LoseResponse
            | Self::LateResponse
            | Self::Throttle
            | Self::ServerError
            | Self::ServerErrorAfterEffect
            | Self::Refuse(_) => true,
            Self::Conflict => WRITES.contains(&operation),
            Self::Duplicate => ["SendMessage", "SendMessageBatch"].contains(&operation),
            Self::Reorder => ["SendMessageBatch", "ReceiveMessage"].contains(&operation),
            Self::FailEntry | Self::RefuseEntries(_) => BATCHES.contains(&operation),
            Self::UnknownQueue => operation == "ReceiveMessage" || BATCHES.contains(&operation),
        }
    }
}
