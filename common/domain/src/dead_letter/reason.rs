//! Source queue and reason code of a dead letter.

use serde::Serialize;

/// The queue in which a message could not be processed.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The requests queue.
    Requests,
    /// The maintenance queue: jobs and deletions.
    Maintenance,
    /// A queue of a newer program: this one sends nothing there.
    Unknown,
}

impl Source {
    /// Both queues.
    pub const ALL: [Self; 2] = [Self::Requests, Self::Maintenance];

    /// As it is stored, shown and parsed.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From a given word.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|source| *source != Self::Unknown)
    }

    /// From the stored word.
    pub fn from_stored(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::Unknown)
    }
}

/// Why a message could not be processed. A code that this program does not know reads as [`Reason::Unknown`].
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    strum::IntoStaticStr,
    strum::EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not a message of the broker.
    Malformed,
    /// Written by a program that is too old.
    OlderVersion,
    /// Written by a newer program, and no worker that can read it came for an hour.
    NewerVersion,
    /// `reply_to` names a queue that no process of this broker can have.
    ForeignReplyQueue,
    /// A live lease and its sandbox do not agree.
    InconsistentLease,
    /// An item of the table is not as this program writes it.
    MalformedItem,
    /// DynamoDB refuses the call.
    TableRefused,
    /// DynamoDB or SQS refuses a call of a job or a deletion.
    Refused,
    /// The worker that handled it panicked. Only of a request that stood in a line: a message goes back to its queue.
    Panicked,
    /// Redrive moved it: it was received as often as the queue allows, and no worker finished it.
    MaxReceivesExceeded,
    /// No reason is recorded.
    Unknown,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::OlderVersion,
        Self::NewerVersion,
        Self::ForeignReplyQueue,
        Self::InconsistentLease,
        Self::MalformedItem,
        Self::TableRefused,
        Self::Refused,
        Self::Panicked,
        Self::MaxReceivesExceeded,
        Self::Unknown,
    ];

    /// The code, as it is stored, shown, counted and parsed.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From a code.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}
