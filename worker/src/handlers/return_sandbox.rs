//! Return: the owner gives a sandbox back (`mark-for-deletion`). It has no deadline: a late return is still wanted.
//!
//! Which lease it ends stands on the sandbox. Most owners have no key but their default, so the first attempt is one write
//! by that key, without a look; if it ends nothing, as where the lease had run out, the sandbox is read and [`judge_return`]
//! decides. Both ways end the same allocation or none; where owners choose their keys, or hold permits, a [`Habit`](super::habit) saves the futile write. Repeats of one
//! return take turns ([`KeyTurns`](super::key_turns)): a return that waited for another looks before it writes.

use broker_domain::{
    Allocation, EndReason, LeaseEnd, Outcome, ReturnRequest, ReturnVerdict, SandboxId, Status, Timestamp,
    judge_return,
};
use broker_runtime::crash_points::{self, Point};
use broker_store::{StoreError, Write};

use super::key_turns::KeyTurn;
use super::{HandlerError, Handlers};
use crate::finality::must_be_held;

/// What an attempt to return a sandbox learnt.
#[derive(Debug)]
pub(super) enum ReturnLearnt {
    /// It ended: a look tells how the sandbox stands now.
    Ended,
    /// The table did not answer.
    Failed,
}

impl Handlers {
    pub(super) async fn return_sandbox(&self, request: &ReturnRequest) -> Result<Outcome, HandlerError> {
        let mut place = self.returns.place(&(request.sandbox_id.clone(), request.track.clone()));
        let mut was_read = false;
        for attempt in 1.. {
            let turn = match place.turn().await {
                KeyTurn::Mine(turn) => turn,
                KeyTurn::Learnt(learnt) => match *learnt {
                    ReturnLearnt::Failed => return Err(Self::failed_for_all()),
                    ReturnLearnt::Ended => match self.look(request).await? {
                        ReturnLook::Told(outcome) => return Ok(outcome),
                        ReturnLook::ToEnd(..) | ReturnLook::InTheWay => continue,
                    },
                },
            };
            let told = self.return_in_turn(request, !was_read).await;
            was_read = true;
            match &told {
                Ok(Some(_)) => turn.learnt(ReturnLearnt::Ended),
                Err(HandlerError::Store(error)) if error.is_retryable() => turn.learnt(ReturnLearnt::Failed),
                Ok(None) | Err(_) => {}
            }
            if let Some(outcome) = told? {
                return Ok(outcome);
            }
            self.back_off(attempt).await;
        }
        Ok(Outcome::Superseded)
    }

    /// One attempt: by the default key, if `blindly` and it is likely, or else after a look; `None` if another request was in the way.
    async fn return_in_turn(
        &self,
        request: &ReturnRequest,
        blindly: bool,
    ) -> Result<Option<Outcome>, HandlerError> {
        if blindly
            && self.default_keys.is_likely()
            && let Some(outcome) = self.return_without_read(request).await?
        {
            return Ok(Some(outcome));
        }
        match self.look(request).await? {
            ReturnLook::Told(outcome) => Ok(Some(outcome)),
            ReturnLook::ToEnd(sandbox, allocation) => self.end_as_read(request, &sandbox, &allocation).await,
            ReturnLook::InTheWay => Ok(None),
        }
    }

    /// One write by the default key; `None` if it ended nothing.
    async fn return_without_read(&self, request: &ReturnRequest) -> Result<Option<Outcome>, HandlerError> {
        let (key, asked) = (request.default_lease_key(), request.times.enqueued_at);
        // The write asks that the lease lasts beyond.
        let end = self.end_of(request, asked);
        let (sandbox, claimed_by) = (&request.sandbox_id, request.claimed_by());
        crash_points::point(Point::BeforeReturn);
        match self.store.leases.return_sandbox(sandbox, &key, claimed_by, asked, &end).await {
            Ok(Write::Applied) => {
                self.default_keys.learn(true);
                Ok(Some(ended(request, &end)))
            }
            Ok(Write::Rejected(())) | Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the sandbox says.
    async fn look(&self, request: &ReturnRequest) -> Result<ReturnLook, HandlerError> {
        let sandbox = match self.store.sandboxes.get(&request.sandbox_id).await {
            Ok(Some(sandbox)) => sandbox,
            Ok(None) => return Ok(ReturnLook::Told(Outcome::SandboxNotFound)),
            Err(StoreError::Conflict) => return Ok(ReturnLook::InTheWay),
            Err(error) => return Err(error.into()),
        };
        Ok(match judge_return(&sandbox, request) {
            ReturnVerdict::End(allocation) => ReturnLook::ToEnd(sandbox.id, allocation),
            ReturnVerdict::AlreadyReturned(at) => ReturnLook::Told(returned(request, at, sandbox.status)),
            ReturnVerdict::Expired => ReturnLook::Told(Outcome::AllocationExpired),
            ReturnVerdict::NotOwner => ReturnLook::Told(Outcome::NotOwner),
            ReturnVerdict::Superseded => ReturnLook::Told(Outcome::Superseded),
            ReturnVerdict::Newer => return Err(HandlerError::Newer { sandbox: sandbox.id }),
        })
    }

    /// Ends the allocation that was read; `None` if another request was in the way.
    async fn end_as_read(
        &self,
        request: &ReturnRequest,
        sandbox: &SandboxId,
        allocation: &Allocation,
    ) -> Result<Option<Outcome>, HandlerError> {
        let is_default = allocation.lease_key == request.default_lease_key();
        self.default_keys.learn(is_default && allocation.permit.is_none());
        let end = self.end_of(request, allocation.expires_at);
        crash_points::point(Point::BeforeEnd);
        match self.store.leases.end(sandbox, allocation, &end).await {
            Ok(Write::Applied) => {
                if allocation.permit.is_some() {
                    self.freed.notify_one();
                }
                Ok(Some(ended(request, &end)))
            }
            Ok(Write::Rejected(())) => must_be_held(&self.store, sandbox, allocation).await.map(|()| None),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn end_of(&self, request: &ReturnRequest, expires_at: Timestamp) -> LeaseEnd {
        LeaseEnd::by_request(EndReason::Returned, self.clock.now(), request.times.enqueued_at, expires_at)
    }
}

/// What a look at a sandbox means for a return.
enum ReturnLook {
    /// It ends the request.
    Told(Outcome),
    /// This allocation of it is to be ended.
    ToEnd(SandboxId, Box<Allocation>),
    /// The table did not get to it.
    InTheWay,
}

fn ended(request: &ReturnRequest, end: &LeaseEnd) -> Outcome {
    crash_points::point(Point::LeaseEnded);
    returned(request, end.at, Status::PendingDeletion)
}

fn returned(request: &ReturnRequest, deletion_requested_at: Timestamp, status: Status) -> Outcome {
    Outcome::Marked { sandbox_id: request.sandbox_id.clone(), deletion_requested_at, status }
}
