//! Dead letters: messages that could not be processed, kept with what is known of them, and what may become of them.
//!
//! Invariant: a letter's id follows from the queue and the message that it was, so whoever keeps it twice keeps one; its
//! text is never changed. What it does not do: read a message (that is `broker-dead-letters`).

mod id;
mod words;

pub use id::{DEAD_LETTER_SHARDS, DeadLetterId, InvalidDeadLetterId};
pub use words::{DeadLetterEvent, DeadLetterState, Reason, Source};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{RequestId, Timestamp, TrackId};

/// What could be read of a message, whoever wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageSummary {
    /// What it asks; `None` if it does not say so in a word of its own.
    pub kind: Option<String>,
    /// Whose request it is.
    pub track: Option<TrackId>,
    /// Its request id.
    pub request_id: Option<RequestId>,
    /// After this it claims nothing.
    pub deadline: Option<Timestamp>,
    /// W3C trace context.
    pub trace: Option<String>,
    /// Whether nobody waits for it and its outcome is stored.
    pub asynchronous: bool,
}

/// The last thing that an operator did with a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why; only of a discard.
    pub why: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// Where its message could not be processed.
    pub source: Source,
    /// Its message's id there.
    pub message_id: String,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, in words.
    pub reason_text: String,
    /// How often it was received before.
    pub receives: u32,
    /// When its message was first sent.
    pub first_at: Timestamp,
    /// When it was found dead.
    pub last_at: Timestamp,
    /// What could be read of it.
    pub summary: MessageSummary,
    /// The letter that this one was sent again from.
    pub replay_of: Option<DeadLetterId>,
    /// The text attributes of its message.
    pub attributes: BTreeMap<String, String>,
    /// The text of its message, as it came.
    pub body: String,
    /// Where it stands.
    pub state: DeadLetterState,
    /// While it is replayed: until when by whoever does.
    pub held_until: Option<Timestamp>,
    /// What was last done with it.
    pub touched: Option<Touched>,
}

impl DeadLetter {
    /// What it asks, or `unknown`.
    pub fn kind(&self) -> &str {
        self.summary.kind.as_deref().unwrap_or("unknown")
    }

    /// Whether somebody else is sending it again at `now`.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.state == DeadLetterState::Replaying && self.held_until.is_some_and(|until| until > now)
    }
}

/// Which letters somebody asks for: those that everything set here is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// The queue.
    pub source: Option<Source>,
    /// What they ask; `unknown` for those that do not say.
    pub kind: Option<String>,
    /// Why they died.
    pub reason: Option<Reason>,
    /// Whose request they are.
    pub track: Option<TrackId>,
    /// First sent at this moment or later.
    pub since: Option<Timestamp>,
    /// First sent before this moment.
    pub before: Option<Timestamp>,
    /// Where they stand; `None`: those that still want something of the operator.
    pub state: Option<DeadLetterState>,
}

impl DeadLetterFilter {
    /// Whether `letter` is one of them.
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

/// How many letters want something of the operator.
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
