//! Mark for deletion: the owner gives his sandbox back. It has no deadline: a late mark is still wanted.
//!
//! Which lease it ends stands on the sandbox. Most owners have no key but their default, so the first attempt is one write
//! by that key, without a look; if it ends nothing, the sandbox is read and [`judge_mark`] decides. Both ways end the same
//! allocation or none; where owners choose their keys, [`DefaultKeys`] saves the futile write.

use std::sync::atomic::{AtomicU8, Ordering};

use broker_domain::{EndReason, LeaseEnd, MarkRequest, MarkVerdict, Outcome, Timestamp, judge_mark};
use broker_runtime::crash_points::{self, Point};
use broker_store::{EndOutcome, StoreError};

use super::{HandlerError, Handlers};

impl Handlers {
    pub(super) async fn mark(&self, mark: &MarkRequest) -> Result<Outcome, HandlerError> {
        if self.default_keys.are_likely()
            && let Some(outcome) = self.return_without_read(mark).await?
        {
            return Ok(outcome);
        }
        for attempt in 1.. {
            if let Some(outcome) = self.mark_as_read(mark).await? {
                return Ok(outcome);
            }
            self.back_off(attempt).await;
        }
        Ok(Outcome::Superseded)
    }

    /// One write by the default key; `None` if it ended nothing.
    async fn return_without_read(&self, mark: &MarkRequest) -> Result<Option<Outcome>, HandlerError> {
        let (key, end) = (mark.default_lease_key(), self.end_of(mark));
        crash_points::point(Point::BeforeReturn);
        match self.store.give_back(&mark.sandbox_id, &key, mark.claimed_by(), &end).await {
            Ok(EndOutcome::Ended) => {
                self.default_keys.learn(true);
                Ok(Some(ended(mark, &end)))
            }
            Ok(EndOutcome::MovedOn) | Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the sandbox says, and a write if it is to be ended; `None` if somebody was in the way.
    async fn mark_as_read(&self, mark: &MarkRequest) -> Result<Option<Outcome>, HandlerError> {
        let sandbox = match self.store.sandbox(&mark.sandbox_id).await {
            Ok(Some(sandbox)) => sandbox,
            Ok(None) => return Ok(Some(Outcome::SandboxNotFound)),
            Err(StoreError::Conflict) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let allocation = match judge_mark(&sandbox, mark) {
            MarkVerdict::End(allocation) => allocation,
            MarkVerdict::AlreadyMarked(at) => return Ok(Some(marked(mark, at))),
            MarkVerdict::Expired => return Ok(Some(Outcome::AllocationExpired)),
            MarkVerdict::NotOwner => return Ok(Some(Outcome::NotOwner)),
            MarkVerdict::Superseded => return Ok(Some(Outcome::Superseded)),
        };
        self.default_keys.learn(allocation.lease_key == mark.default_lease_key());
        let end = self.end_of(mark);
        crash_points::point(Point::BeforeEnd);
        match self.store.end(&sandbox.id, &allocation, &end).await {
            Ok(EndOutcome::Ended) => Ok(Some(ended(mark, &end))),
            Ok(EndOutcome::MovedOn) => self.must_agree(&allocation.lease_key).await.map(|()| None),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn end_of(&self, mark: &MarkRequest) -> LeaseEnd {
        LeaseEnd::by_request(EndReason::Marked, self.clock.now(), mark.times.enqueued_at)
    }
}

fn ended(mark: &MarkRequest, end: &LeaseEnd) -> Outcome {
    crash_points::point(Point::LeaseEnded);
    marked(mark, end.at)
}

fn marked(mark: &MarkRequest, deletion_requested_at: Timestamp) -> Outcome {
    Outcome::Marked { sandbox_id: mark.sandbox_id.clone(), deletion_requested_at }
}

/// Whether owners use their default key, going by the last of them, as a branch predictor goes by the last branches: one
/// exception among many changes nothing.
#[derive(Debug)]
pub(super) struct DefaultKeys(AtomicU8);

impl DefaultKeys {
    const SURE: u8 = 3;
    const LIKELY: u8 = 2;

    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(Self::LIKELY))
    }

    fn are_likely(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::LIKELY
    }

    /// Whether the key of a lease that was given back was the default.
    fn learn(&self, was_default: bool) {
        let learned = |level: u8| match was_default {
            true => Some(Self::SURE.min(level + 1)),
            false => Some(level.saturating_sub(1)),
        };
        // Always written: the closure never refuses.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, learned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_exception_changes_nothing_and_a_habit_does() {
        let keys = DefaultKeys::new();
        assert!(keys.are_likely(), "to begin with");
        keys.learn(true);
        keys.learn(false);
        assert!(keys.are_likely(), "after one exception");
        (0..9).for_each(|_| keys.learn(false));
        keys.learn(true);
        assert!(!keys.are_likely(), "after one exception from choosing");
        keys.learn(true);
        assert!(keys.are_likely(), "after two");
    }
}
