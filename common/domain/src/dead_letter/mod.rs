//! Dead letters: messages that could not be processed, kept with their reason, and their state machine.
//!
//! Invariant: the id follows from the queue and the message, so keeping a message twice makes one dead letter; its text
//! never changes. Reading messages is the task of `broker-dead-letters`.

mod id;
mod reason;
mod state;

pub use id::{DEAD_LETTER_SHARDS, DeadLetterId, InvalidDeadLetterId};
pub use reason::{Reason, Source};
pub use state::{DeadLetterEvent, DeadLetterState};

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{RequestId, Timestamp, TrackId};

/// How long a letter that is being replayed is held.
pub const LETTER_HELD_FOR: Duration = Duration::from_secs(15);

/// The fields that could be read of a message, ours or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageSummary {
    /// The kind of the message; `None` if it names none.
    pub kind: Option<String>,
    /// The track that asked.
    pub track: Option<TrackId>,
    /// Its request id.
    pub request_id: Option<RequestId>,
    /// The deadline: nothing is claimed after it.
    pub deadline: Option<Timestamp>,
    /// W3C trace context.
    pub trace: Option<String>,
    /// Whether the outcome is stored, because no caller waits.
    pub asynchronous: bool,
}

/// The last action of an operator on a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// When.
    pub at: Timestamp,
    /// By which operator.
    pub by: String,
    /// Why; only of a discard.
    pub why: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// The queue in which its message could not be processed.
    pub source: Source,
    /// The message id in that queue.
    pub message_id: String,
    /// The reason, as a code.
    pub reason: Reason,
    /// The reason, in words.
    pub reason_text: String,
    /// How often it was received before.
    pub receives: u32,
    /// When its message was first sent.
    pub first_at: Timestamp,
    /// When it was found in the dead-letter queue.
    pub last_at: Timestamp,
    /// The fields that could be read of it.
    pub summary: MessageSummary,
    /// The dead letter whose replay died again as this one.
    pub replay_of: Option<DeadLetterId>,
    /// The text attributes of its message.
    pub attributes: BTreeMap<String, String>,
    /// The text of its message, unchanged.
    pub body: String,
    /// Its state.
    pub state: DeadLetterState,
    /// While it is replayed: until when its replayer holds it.
    pub held_until: Option<Timestamp>,
    /// The last action on it.
    pub touched: Option<Touched>,
}

impl DeadLetter {
    /// The kind of its message, or `unknown`.
    pub fn kind(&self) -> &str {
        self.summary.kind.as_deref().unwrap_or("unknown")
    }

    /// Whether another replay holds it at `now`.
    pub fn is_held(&self, now: Timestamp) -> bool {
        let holds = |until: Timestamp| until.is_to_come(now, LETTER_HELD_FOR);
        self.state == DeadLetterState::Replaying && self.held_until.is_some_and(holds)
    }
}

/// A filter for dead letters: everything that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// The queue.
    pub source: Option<Source>,
    /// The kind of the message; `unknown` for those without one.
    pub kind: Option<String>,
    /// The reason.
    pub reason: Option<Reason>,
    /// The track that asked.
    pub track: Option<TrackId>,
    /// First sent at this moment or later.
    pub since: Option<Timestamp>,
    /// First sent before this moment.
    pub before: Option<Timestamp>,
    /// The state; `None`: the open ones, which still need an operator.
    pub state: Option<DeadLetterState>,
}

impl DeadLetterFilter {
    /// Whether `letter` matches.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let state = self.state.map_or(letter.state.is_open(), |state| state == letter.state);
        state
            && self.source.is_none_or(|source| source == letter.source)
            && self.kind.as_deref().is_none_or(|kind| kind == letter.kind())
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.track.as_ref().is_none_or(|track| Some(track) == letter.summary.track.as_ref())
            && self.since.is_none_or(|since| letter.first_at >= since)
            && self.before.is_none_or(|before| letter.first_at < before)
    }
}

/// The number of open dead letters, which need an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterCount {
    /// By the code of their reason.
    pub by_reason: BTreeMap<String, u64>,
    /// When the oldest was first sent.
    pub oldest: Option<Timestamp>,
}

impl DeadLetterCount {
    /// One more, if it is open.
    pub fn add(&mut self, letter: &DeadLetter) {
        if letter.state.is_open() {
            *self.by_reason.entry(letter.reason.as_str().to_owned()).or_default() += 1;
            self.oldest = Some(self.oldest.map_or(letter.first_at, |oldest| oldest.min(letter.first_at)));
        }
    }
}

#[cfg(test)]
mod tests;
