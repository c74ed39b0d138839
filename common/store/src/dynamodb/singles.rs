//! Single calls: those of one item each that a burst of clients makes, a bounded number in flight.
//!
//! Each call in flight has a connection, and the time of an attempt counts from before that is open: five hundred at once would
//! open five hundred, time out together, and be repeated together. Here they wait for a turn before their time begins. Invariant:
//! a caller waits for a turn no longer than [`PATIENCE`], so a table that does not answer is told as such soon.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::StoreError;

/// Calls in flight at a time: 3,000 a second and more at what a call to AWS takes (4 to 12 ms).
const CALLS: usize = 32;
/// How long a call waits for its turn: longer than one that fails takes (three attempts of a second).
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of a process.
#[derive(Debug)]
pub(super) struct SingleCalls {
    turns: Semaphore,
    patience: Duration,
}

/// No turn came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many calls wait for the table")]
struct NoTurn;

impl SingleCalls {
    pub(super) const fn new() -> Self {
        Self { turns: Semaphore::const_new(CALLS), patience: PATIENCE }
    }

    /// A turn for the call `operation`, held until it is answered. Turns are taken in the order of asking.
    pub(super) async fn turn(&self, operation: &'static str) -> Result<SemaphorePermit<'_>, StoreError> {
        let turn = tokio::time::timeout(self.patience, self.turns.acquire()).await;
        let turn = turn.ok().and_then(Result::ok);
        turn.ok_or_else(|| StoreError::Unavailable { operation, source: Box::new(NoTurn) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_are_in_flight_and_who_has_no_turn_in_time_is_told() {
        let calls = SingleCalls { patience: Duration::ZERO, ..SingleCalls::new() };
        let mut held = Vec::new();
        for _ in 0..CALLS {
            held.push(calls.turn("record").await.unwrap());
        }
        let refused = calls.turn("record").await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable { operation: "record", .. }), "{refused}");
        held.pop();
        assert!(calls.turn("record").await.is_ok());
    }
}
