//! Mark for deletion: the owner gives his sandbox back. It has no deadline: a late mark is still wanted.

use broker_common::crash::{self, Point};
use broker_common::domain::{EndReason, LeaseEnd, MarkRequest, MarkVerdict, Outcome, judge_mark};
use broker_common::store::{EndOutcome, StoreError};

use super::{Handlers, Undecided};

impl Handlers {
    pub(super) async fn mark(&self, mark: &MarkRequest) -> Result<Outcome, Undecided> {
        for attempt in 1.. {
            let sandbox = match self.store.sandbox(&mark.sandbox_id).await {
                Ok(Some(sandbox)) => sandbox,
                Ok(None) => return Ok(Outcome::SandboxNotFound),
                Err(StoreError::Conflict) => {
                    self.step_aside(attempt).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let allocation = match judge_mark(&sandbox, mark) {
                MarkVerdict::End(allocation) => allocation,
                MarkVerdict::AlreadyMarked(deletion_requested_at) => {
                    return Ok(Outcome::Marked { sandbox_id: sandbox.id, deletion_requested_at });
                }
                MarkVerdict::Expired => return Ok(Outcome::AllocationExpired),
                MarkVerdict::NotOwner => return Ok(Outcome::NotOwner),
                MarkVerdict::Superseded => return Ok(Outcome::Superseded),
            };
            let end = LeaseEnd::by_request(EndReason::Marked, self.clock.now(), mark.times.enqueued_at);
            crash::point(Point::BeforeEnd);
            match self.store.end(&sandbox.id, &allocation, &end).await {
                Ok(EndOutcome::Ended) => {
                    crash::point(Point::LeaseEnded);
                    return Ok(Outcome::Marked { sandbox_id: sandbox.id, deletion_requested_at: end.at });
                }
                Ok(EndOutcome::MovedOn) => self.must_agree(&allocation.lease_key).await?,
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            self.step_aside(attempt).await;
        }
        Ok(Outcome::Superseded)
    }
}
