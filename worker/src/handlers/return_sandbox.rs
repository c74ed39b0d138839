//! Return: the owner gives a sandbox back (`mark-for-deletion`). It has no deadline: a late return is still wanted.
//!
//! The sandbox names the lease to end. Most owners have only their default key, so the first attempt is one write by that
//! key, without a read; if it ends nothing, the sandbox is read and [`judge_return`] decides. Both ways end the same
//! allocation or none; where owners choose their keys, [`DefaultKeys`] saves the futile write.

use std::sync::atomic::{AtomicU8, Ordering};

use broker_domain::{EndReason, LeaseEnd, Outcome, ReturnRequest, ReturnVerdict, Timestamp, judge_return};
use broker_runtime::crash_points::{self, Point};
use broker_store::{EndOutcome, StoreError};

use super::{HandlerError, Handlers};

impl Handlers {
    pub(super) async fn return_sandbox(&self, request: &ReturnRequest) -> Result<Outcome, HandlerError> {
        if self.default_keys.are_likely()
            && let Some(outcome) = self.return_without_read(request).await?
        {
            return Ok(outcome);
        }
        for attempt in 1.. {
            if let Some(outcome) = self.return_as_read(request).await? {
                return Ok(outcome);
            }
            self.back_off(attempt).await;
        }
        Ok(Outcome::Superseded)
    }

    /// One write by the default key; `None` if it ended nothing.
    async fn return_without_read(&self, request: &ReturnRequest) -> Result<Option<Outcome>, HandlerError> {
        let (key, end) = (request.default_lease_key(), self.end_of(request));
        crash_points::point(Point::BeforeReturn);
        match self.store.return_sandbox(&request.sandbox_id, &key, request.claimed_by(), &end).await {
            Ok(EndOutcome::Ended) => {
                self.default_keys.learn(true);
                Ok(Some(ended(request, &end)))
            }
            Ok(EndOutcome::MovedOn) | Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the sandbox, and ends its lease if the return is valid; `None` if another write was in the way.
    async fn return_as_read(&self, request: &ReturnRequest) -> Result<Option<Outcome>, HandlerError> {
        let sandbox = match self.store.sandbox(&request.sandbox_id).await {
            Ok(Some(sandbox)) => sandbox,
            Ok(None) => return Ok(Some(Outcome::SandboxNotFound)),
            Err(StoreError::Conflict) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let allocation = match judge_return(&sandbox, request) {
            ReturnVerdict::End(allocation) => allocation,
            ReturnVerdict::AlreadyReturned(at) => return Ok(Some(returned(request, at))),
            ReturnVerdict::Expired => return Ok(Some(Outcome::AllocationExpired)),
            ReturnVerdict::NotOwner => return Ok(Some(Outcome::NotOwner)),
            ReturnVerdict::Superseded => return Ok(Some(Outcome::Superseded)),
        };
        self.default_keys.learn(allocation.lease_key == request.default_lease_key());
        let end = self.end_of(request);
        crash_points::point(Point::BeforeEnd);
        match self.store.end(&sandbox.id, &allocation, &end).await {
            Ok(EndOutcome::Ended) => Ok(Some(ended(request, &end))),
            Ok(EndOutcome::MovedOn) => self.must_agree(&allocation.lease_key).await.map(|()| None),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn end_of(&self, request: &ReturnRequest) -> LeaseEnd {
        LeaseEnd::by_request(EndReason::Returned, self.clock.now(), request.times.enqueued_at)
    }
}

fn ended(request: &ReturnRequest, end: &LeaseEnd) -> Outcome {
    crash_points::point(Point::LeaseEnded);
    returned(request, end.at)
}

fn returned(request: &ReturnRequest, deletion_requested_at: Timestamp) -> Outcome {
    Outcome::Marked { sandbox_id: request.sandbox_id.clone(), deletion_requested_at }
}

/// Whether owners use their default key, predicted from the last ones, as a branch predictor does: one exception among many
/// changes nothing.
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

    /// Learns whether the key of an ended lease was the default.
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
