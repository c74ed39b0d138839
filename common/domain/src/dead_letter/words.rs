//! The words for a dead letter: where it comes from, why, and where it stands.

use serde::Serialize;

/// The queue in which a message could not be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What the API asks.
    Requests,
    /// Jobs and deletions.
    Maintenance,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Requests, Self::Maintenance];

    /// As it is stored, shown and asked for.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Maintenance => "maintenance",
        }
    }

    /// From what is stored or asked for.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// Why a message could not be processed. A code that this program does not know reads as [`Reason::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Not a message of ours.
    Malformed,
    /// Written by a program too old.
    OlderVersion,
    /// Its reply was to go where none of our processes waits.
    ForeignReplyQueue,
    /// A live lease and its sandbox do not agree.
    InconsistentLease,
    /// An item of the table is not as this program writes it.
    MalformedItem,
    /// The table refuses the call.
    TableRefused,
    /// The table or a queue refuses what a job or a deletion asks of it.
    Refused,
    /// Redrive moved it: it was received as often as the queue allows, by workers that did not finish it.
    MaxReceivesExceeded,
    /// Nobody said.
    Unknown,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::OlderVersion,
        Self::ForeignReplyQueue,
        Self::InconsistentLease,
        Self::MalformedItem,
        Self::TableRefused,
        Self::Refused,
        Self::MaxReceivesExceeded,
        Self::Unknown,
    ];

    /// The code, as it is stored, shown, counted and asked for.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OlderVersion => "older_version",
            Self::ForeignReplyQueue => "foreign_reply_queue",
            Self::InconsistentLease => "inconsistent_lease",
            Self::MalformedItem => "malformed_item",
            Self::TableRefused => "table_refused",
            Self::Refused => "refused",
            Self::MaxReceivesExceeded => "max_receives_exceeded",
            Self::Unknown => "unknown",
        }
    }

    /// From a code.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// Where a letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// Somebody has to look at it.
    Dead,
    /// Somebody sends it again just now, or died over it.
    Replaying,
    /// It was sent again. What becomes of it then is its message's affair.
    Replayed,
    /// Nobody wants it.
    Discarded,
}

/// What may happen to a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterEvent {
    /// Somebody is about to send it again.
    Take,
    /// He did.
    Sent,
    /// The operator does not want it.
    Discard,
}

impl DeadLetterState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dead, Self::Replaying, Self::Replayed, Self::Discarded];

    /// As it is stored, shown and asked for.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Replaying => "replaying",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    /// From what is stored or asked for.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Where `event` leads; `None` if it may not happen here. Whoever takes what is being replayed must wait until it is
    /// not held any more.
    pub const fn after(self, event: DeadLetterEvent) -> Option<Self> {
        match (self, event) {
            (Self::Dead | Self::Replaying, DeadLetterEvent::Take) => Some(Self::Replaying),
            (Self::Replaying, DeadLetterEvent::Sent) => Some(Self::Replayed),
            (Self::Dead, DeadLetterEvent::Discard) => Some(Self::Discarded),
            (Self::Replayed | Self::Discarded, DeadLetterEvent::Take)
            | (Self::Dead | Self::Replayed | Self::Discarded, DeadLetterEvent::Sent)
            | (Self::Replaying | Self::Replayed | Self::Discarded, DeadLetterEvent::Discard) => None,
        }
    }

    /// Whether it still wants something of the operator.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Dead | Self::Replaying => true,
            Self::Replayed | Self::Discarded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_again_is_replayed_and_only_what_nobody_replays_is_discarded() {
        use DeadLetterEvent::{Discard, Sent, Take};
        use DeadLetterState::{Dead, Discarded, Replayed, Replaying};
        let allowed = [
            (Dead, Take, Replaying),
            (Dead, Discard, Discarded),
            (Replaying, Take, Replaying),
            (Replaying, Sent, Replayed),
        ];
        for state in DeadLetterState::ALL {
            for event in [Take, Sent, Discard] {
                let expected = allowed.iter().find(|(from, by, _)| (*from, *by) == (state, event));
                assert_eq!(state.after(event), expected.map(|(_, _, to)| *to), "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn every_word_reads_back() {
        assert!(Reason::ALL.iter().all(|reason| Reason::parse(reason.as_str()) == Some(*reason)));
        assert!(
            DeadLetterState::ALL.iter().all(|state| DeadLetterState::parse(state.as_str()) == Some(*state))
        );
        assert!(Source::ALL.iter().all(|source| Source::parse(source.as_str()) == Some(*source)));
    }
}
