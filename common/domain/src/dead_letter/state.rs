//! State machine of a dead letter.

use serde::Serialize;

/// The state of a dead letter.
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
pub enum DeadLetterState {
    /// An operator has to act on it.
    Dead,
    /// It is being sent again, or the process that began to has ended.
    Replaying,
    /// It was sent again; its message is processed like any other.
    Replayed,
    /// An operator discarded it.
    Discarded,
    /// A state of a newer program: this one does nothing with it.
    Unknown,
}

/// An event in the life of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterEvent {
    /// A replay is about to send it again.
    Take,
    /// The replay sent it.
    Sent,
    /// An operator discards it.
    Discard,
}

impl DeadLetterState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Dead, Self::Replaying, Self::Replayed, Self::Discarded, Self::Unknown];

    /// As it is stored, shown and parsed.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// From a given word.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// From the stored word.
    pub fn from_stored(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::Unknown)
    }

    /// The state after `event`; `None` if it is not possible. Taking or discarding a letter that is being replayed must wait
    /// until it is not held any more.
    pub const fn after(self, event: DeadLetterEvent) -> Option<Self> {
        match (self, event) {
            (Self::Dead | Self::Replaying, DeadLetterEvent::Take) => Some(Self::Replaying),
            (Self::Replaying, DeadLetterEvent::Sent) => Some(Self::Replayed),
            (Self::Dead | Self::Replaying, DeadLetterEvent::Discard) => Some(Self::Discarded),
            (Self::Replayed | Self::Discarded, DeadLetterEvent::Take)
            | (Self::Dead | Self::Replayed | Self::Discarded, DeadLetterEvent::Sent)
            | (Self::Replayed | Self::Discarded, DeadLetterEvent::Discard)
            | (Self::Unknown, _) => None,
        }
    }

    /// Whether it still needs an operator.
    pub(crate) const fn is_open(self) -> bool {
        match self {
            Self::Dead | Self::Replaying => true,
            Self::Replayed | Self::Discarded | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{Reason, Source};

    #[test]
    fn only_what_was_sent_again_is_replayed_and_only_what_nobody_replays_is_discarded() {
        use DeadLetterEvent::{Discard, Sent, Take};
        use DeadLetterState::{Dead, Discarded, Replayed, Replaying};
        let allowed = [
            (Dead, Take, Replaying),
            (Dead, Discard, Discarded),
            (Replaying, Take, Replaying),
            (Replaying, Discard, Discarded),
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
