//! `GET /v1/requests/{request_id}`: the state of a request that was answered 202. `DELETE` cancels one that was sent with
//! `respond-async`, while it is queued.
//!
//! Invariant: an outcome is stored before it is returned, so it never changes; `expired` is written conditionally and only
//! when no claim can be under way any more. A record that is still queued may have been satisfied (its worker or its reply
//! was lost): the lease, or the sandbox of a return, decides. A return never expires: it is wanted however late
//! (`domain::judge_return`), so it is queued until a worker has stored its outcome. A track learns nothing of another's
//! request, not even that it exists.

use std::borrow::Cow;
use std::time::Duration;

use broker_domain::{
    Outcome, PersistedRequest, RequestId, RequestState, ReturnRequest, ReturnVerdict, SandboxId, Times,
    TrackId, judge_return,
};
use broker_runtime::clock::Clock;
use broker_store::{Cancellation, Completion, Store, StoreError};

use crate::response::Answer;
use crate::response::codes::Code;
use crate::response::outcome;
use crate::response::problem::Problem;

/// A worker checks the deadline before each attempt to claim. Until an attempt that began just in time has certainly ended
/// (three attempts of a second each with their pauses, and two clocks that may be two seconds off each), the request is
/// still queued.
const CLAIM_UNDER_WAY: Duration = Duration::from_secs(10);

/// The handler of request records.
pub(crate) struct Requests {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
}

impl Requests {
    pub(crate) async fn show(&self, track: &TrackId, request: &str) -> Result<Answer, Problem> {
        let record = self.find(track, request).await?;
        let id = record.request_id;
        Ok(outcome::report(&self.completed(record).await?, id))
    }

    pub(crate) async fn cancel(&self, track: &TrackId, request: &str) -> Result<Answer, Problem> {
        let record = self.find(track, request).await?;
        let (id, asynchronous) = (record.request_id, record.asynchronous);
        match self.completed(record).await? {
            RequestState::Queued => match self.store.cancel_request(id).await? {
                Cancellation::Cancelled => Ok(outcome::report(&RequestState::Ended(Outcome::Cancelled), id)),
                Cancellation::TooLate if asynchronous => Err(not_cancellable("It has just ended.")),
                Cancellation::TooLate => Err(not_cancellable("It was not sent with Prefer: respond-async.")),
            },
            ended @ RequestState::Ended(_) => {
                Err(not_cancellable(format!("It has ended: {}.", ended.as_str())))
            }
        }
    }

    /// The record of `request`, if it is one of `track`.
    async fn find(&self, track: &TrackId, request: &str) -> Result<PersistedRequest, Problem> {
        let not_found = || Problem::new(Code::RequestNotFound, "There is no such request.");
        let id = RequestId::parse(request).map_err(|_| not_found())?;
        let record = self.store.request(id).await?.filter(|record| record.track == *track);
        record.ok_or_else(not_found)
    }

    /// The state of the request, after its record was completed from lease or sandbox.
    async fn completed(&self, record: PersistedRequest) -> Result<RequestState, StoreError> {
        if let RequestState::Ended(_) = record.state {
            return Ok(record.state);
        }
        // The time is taken first: a change after the deadline must not be missed by a read from before it.
        let now = self.clock.now();
        let done = match (&record.lease_key, &record.sandbox_id) {
            (Some(_), _) => self.claimed(&record).await?,
            (None, Some(sandbox_id)) => self.returned(&record, sandbox_id).await?,
            (None, None) => None,
        };
        let too_late = record.lease_key.is_some() && now > record.deadline.plus(CLAIM_UNDER_WAY);
        let ended = done.or_else(|| too_late.then_some(Outcome::Expired));
        let Some(ended) = ended else { return Ok(RequestState::Queued) };
        let record = PersistedRequest { state: RequestState::Ended(ended), ..record };
        match self.store.complete_request(&record).await? {
            Completion::Stored => Ok(record.state),
            Completion::EndedBefore(before) => Ok(before.state),
        }
    }

    /// The outcome of a lease that this request claimed, live or ended since.
    async fn claimed(&self, record: &PersistedRequest) -> Result<Option<Outcome>, StoreError> {
        let Some(key) = &record.lease_key else { return Ok(None) };
        let lease = self.store.lease(key).await?.filter(|lease| lease.request_id == record.request_id);
        Ok(lease.map(|lease| Outcome::Created(lease.grant)))
    }

    /// The outcome of a sandbox that is in the state that this return wanted.
    async fn returned(
        &self,
        record: &PersistedRequest,
        sandbox_id: &SandboxId,
    ) -> Result<Option<Outcome>, StoreError> {
        let Some(sandbox) = self.store.sandbox(sandbox_id).await? else { return Ok(None) };
        Ok(match judge_return(&sandbox, &return_of(record, sandbox_id)) {
            ReturnVerdict::AlreadyReturned(deletion_requested_at) => {
                Some(Outcome::Marked { sandbox_id: sandbox.id, deletion_requested_at })
            }
            ReturnVerdict::End(_)
            | ReturnVerdict::Expired
            | ReturnVerdict::NotOwner
            | ReturnVerdict::Superseded => None,
        })
    }
}

fn not_cancellable(why: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Code::NotCancellable, why)
}

/// The return of `record`.
fn return_of(record: &PersistedRequest, sandbox_id: &SandboxId) -> ReturnRequest {
    ReturnRequest {
        request_id: record.request_id,
        track: record.track.clone(),
        sandbox_id: sandbox_id.clone(),
        times: Times { enqueued_at: record.created_at, reply_by: record.deadline, deadline: record.deadline },
    }
}
