//! From a request to its outcome. One file per kind; this match is the list of them.

mod allocate;
mod mark;

use std::time::Duration;

use broker_common::clock::Clock;
use broker_common::domain::Outcome;
use broker_common::entropy::Entropy;
use broker_common::messages::Ask;
use broker_common::store::{Store, StoreError};

use crate::candidates::Candidates;

/// The longest time that one delivery of a message is worked on; below it, half of its visibility timeout.
const LONGEST_TURN: Duration = Duration::from_secs(10);
/// The pause after a conflict, before jitter.
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

/// Why a handler has no outcome (yet).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecided {
    /// Candidates remain, but this turn was long enough: try again soon.
    #[error("lost races until the turn was over")]
    TurnOver,
    /// The table could not be asked, or holds what it must not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What all handlers work with.
#[derive(Debug)]
pub(crate) struct Handlers {
    store: Store,
    candidates: Candidates,
    clock: Clock,
    entropy: Entropy,
    turn: Duration,
}

impl Handlers {
    pub(crate) fn new(
        store: Store,
        candidates: Candidates,
        clock: Clock,
        entropy: Entropy,
        visibility: Duration,
    ) -> Self {
        Self { store, candidates, clock, entropy, turn: LONGEST_TURN.min(visibility / 2) }
    }

    /// How `ask` ends. Safe to call any number of times with the same request.
    pub(crate) async fn handle(&self, ask: &Ask) -> Result<Outcome, Undecided> {
        match ask {
            Ask::Allocate(ask) => self.allocate(ask).await,
            Ask::Mark(mark) => self.mark(mark).await,
        }
    }

    /// A jittered moment, after somebody else was in the way.
    async fn step_aside(&self) {
        tokio::time::sleep(self.entropy.jitter(CONFLICT_PAUSE)).await;
    }
}
