//! `GET /v1/requests/{request_id}`: the state of a request that was answered 202. `DELETE` cancels one that was sent with
//! `respond-async` or `max_wait_s`, while it is queued.
//!
//! Invariant: an outcome is stored before it is answered, so it never changes afterwards; `expired` is written conditionally and only
//! when no claim can be under way any more. A request whose record is still queued may have succeeded (its
//! worker or its reply was lost): the lease, or the sandbox of a return, shows it. A return never expires: it is carried out however
//! late, so it is queued for as long as [`judge_return`] finds a lease to end. After its deadline every
//! other verdict is final and is its outcome. A request of another track is answered as if it did not exist.

use std::borrow::Cow;
use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::waiting::Line;
use broker_domain::{
    Lease, LeaseVerdict, Outcome, PersistedRequest, RequestId, RequestState, ReturnRequest, ReturnVerdict,
    Sandbox, SandboxId, Subject, Times, Timestamp, TrackId, judge, judge_return,
};
use broker_messages::{Request, RequestMessage};
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{FollowedPolicy, Store, StoreError, Write, retry_on_conflict};

use crate::response::Response;
use crate::response::codes::Code;
use crate::response::outcome;
use crate::response::problem::Problem;
use crate::waiting::{CachedLines, told, waited};

/// A worker checks the deadline before each attempt to claim. Until an attempt that began just in time has certainly ended
/// (three attempts of a second each with their pauses, and two clocks that may be two seconds off each), the request is
/// still queued.
const CLAIM_UNDER_WAY: Duration = Duration::from_secs(10);

/// The handler of request records.
#[derive(Clone)]
pub(crate) struct RequestRecords {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) lines: CachedLines,
    pub(crate) policy: FollowedPolicy,
}

impl RequestRecords {
    pub(crate) async fn show(&self, track: &TrackId, request: &str) -> Result<Response, Problem> {
        let record = self.find(track, request).await?;
        let (id, deadline, parked) = (record.request_id, record.deadline, record.parked.clone());
        match (self.completed(record).await?, parked) {
            (RequestState::Ended(Outcome::Unknown(_)), _) => {
                Err(Problem::new(Code::Unavailable, outcome::NEWER))
            }
            (state @ RequestState::Queued, Some(line)) => {
                // Why it waits is the policy's to say.
                let Ok(policy) = self.policy.now() else { return Ok(outcome::report(&state, id)) };
                let lines = self.lines.now().await?;
                let standing = lines.standing(&line, id, self.clock.now());
                let reason = self.lines.reason(&line, &policy).await?;
                let estimate = self.lines.estimate((&line, id), &lines, &policy, reason).await;
                let told = told(standing, id, deadline, reason, estimate);
                Ok(outcome::waiting(told, standing, id))
            }
            (RequestState::Ended(Outcome::Expired), Some(line)) => {
                let policy = self.policy.now().unwrap_or_default();
                Ok(outcome::waited_in_vain(&line_in_words(&line, &policy), id))
            }
            (state @ (RequestState::Queued | RequestState::Ended(_)), _) => Ok(outcome::report(&state, id)),
        }
    }

    pub(crate) async fn cancel(&self, track: &TrackId, request: &str) -> Result<Response, Problem> {
        let record = self.find(track, request).await?;
        let (id, asynchronous, parked) = (record.request_id, record.asynchronous, record.parked.clone());
        match self.completed(record).await? {
            // A worker claims for it at this moment, perhaps: then one of both is first.
            RequestState::Queued => {
                match retry_on_conflict(&self.entropy, || self.store.requests.cancel(id)).await? {
                    Write::Applied => {
                        if parked.is_some() {
                            waited(id, self.clock.now(), Outcome::Cancelled.as_str());
                        }
                        self.leave(id, parked.as_ref()).await;
                        Ok(outcome::report(&RequestState::Ended(Outcome::Cancelled), id))
                    }
                    Write::Rejected(()) if asynchronous => Err(not_cancellable("It has just ended.")),
                    Write::Rejected(()) => {
                        Err(not_cancellable("It was sent with neither Prefer: respond-async nor max_wait_s."))
                    }
                }
            }
            ended @ RequestState::Ended(_) => {
                Err(not_cancellable(format!("It has ended: {}.", ended.as_str())))
            }
        }
    }

    /// How a recorded request has ended, if it has, and in which line it stood. For its own call, which waits no more: as its
    /// `GET` would tell.
    pub(crate) async fn end_of(&self, id: RequestId) -> Result<Option<(Outcome, Option<Line>)>, StoreError> {
        let Some(record) = self.store.requests.get(id).await? else { return Ok(None) };
        let stood_in = record.parked.clone();
        Ok(match self.completed(record).await? {
            RequestState::Ended(outcome) => Some((outcome, stood_in)),
            RequestState::Queued => None,
        })
    }

    /// The record of `request`, if it is one of `track`.
    async fn find(&self, track: &TrackId, request: &str) -> Result<PersistedRequest, Problem> {
        let not_found = || Problem::new(Code::RequestNotFound, "There is no such request.");
        let id = RequestId::parse(request).map_err(|_| not_found())?;
        let record = self.store.requests.get(id).await?.filter(|record| record.track == *track);
        record.ok_or_else(not_found)
    }

    /// The state of the request, after its record was completed from lease or sandbox.
    async fn completed(&self, record: PersistedRequest) -> Result<RequestState, StoreError> {
        if let RequestState::Ended(_) = record.state {
            return Ok(record.state);
        }
        // The time is taken first: a change after the deadline must not be missed by a read from before it.
        let now = self.clock.now();
        let too_late = now > record.deadline.plus(CLAIM_UNDER_WAY);
        let ended = match (&record.subject, &record.parked) {
            (Subject::Allocate(key), Some(line)) => {
                let lease = self.store.leases.get(key).await?;
                match claimed(&record, lease.as_ref()) {
                    Some(outcome) => Some(outcome),
                    None => self.of_parked(&record, line, lease.as_ref(), now).await?,
                }
            }
            (Subject::Allocate(key), None) => {
                let lease = self.store.leases.get(key).await?;
                claimed(&record, lease.as_ref())
                    .or_else(|| too_late.then(|| left(record.message.as_deref(), lease.as_ref(), now)))
            }
            (Subject::Return(sandbox_id), _) => {
                let sandbox = self.store.sandboxes.get(sandbox_id).await?;
                returned(&record, sandbox_id, sandbox.as_ref(), too_late)
            }
        };
        let Some(ended) = ended else { return Ok(RequestState::Queued) };
        let record = PersistedRequest { state: RequestState::Ended(ended), ..record };
        let state = match retry_on_conflict(&self.entropy, || self.store.requests.complete(&record)).await? {
            Write::Applied => {
                if let (Some(_), RequestState::Ended(outcome)) = (&record.parked, &record.state) {
                    waited(record.request_id, now, outcome.as_str());
                }
                record.state
            }
            Write::Rejected(before) => before.state,
        };
        // The end of a dead letter may be taken back by a replay, which parks it anew.
        if matches!(&state, RequestState::Ended(outcome) if !matches!(outcome, Outcome::DeadLettered { .. }))
        {
            self.leave(record.request_id, record.parked.as_ref()).await;
        }
        Ok(state)
    }

    /// How a parked request has ended that claimed nothing: as its key's lease tells, or by its deadline. Every grant is
    /// conditional on its record, so neither needs a margin.
    async fn of_parked(
        &self,
        record: &PersistedRequest,
        line: &Line,
        lease: Option<&Lease>,
        now: Timestamp,
    ) -> Result<Option<Outcome>, StoreError> {
        let is_over = now > record.deadline;
        if lease.is_none() && !is_over {
            return Ok(None);
        }
        let place = self.store.waiting.place(line, record.request_id).await?;
        let told = left(place.as_ref().map(|place| place.message.as_str()), lease, now);
        Ok(Some(told).filter(|told| is_over || *told != Outcome::Expired))
    }

    /// Deletes the place of a request that has ended. A place that stays grants nothing, and the next that meets it deletes it.
    async fn leave(&self, id: RequestId, parked: Option<&Line>) {
        let Some(line) = parked else { return };
        if let Err(error) = self.store.waiting.leave(line, id).await {
            tracing::info!(request_id = %id, "the place of an ended request was not deleted, a worker will: {error}");
        }
    }
}

/// What those in `line` wait for.
pub(crate) fn line_in_words(line: &Line, policy: &Policy) -> String {
    match (&line.prefix, policy.flavour_with(line.prefix.as_ref())) {
        (Some(_), Some((name, _))) => format!("the flavour {name}"),
        (Some(prefix), None) => format!("sandboxes whose names begin with {}", prefix.as_str()),
        (None, _) => "any sandbox".to_owned(),
    }
}

/// A lease that this request claimed, live or ended since.
fn claimed(record: &PersistedRequest, lease: Option<&Lease>) -> Option<Outcome> {
    let lease = lease.filter(|lease| lease.request_id == record.request_id)?;
    Some(Outcome::Created(lease.grant.clone()))
}

/// How an allocation ended that claimed nothing, once no worker claims for it any more: as its key's lease tells every
/// worker that comes late, or else as expired.
fn left(message: Option<&str>, lease: Option<&Lease>, now: Timestamp) -> Outcome {
    let message = message.and_then(|text| RequestMessage::decode(text).ok());
    let Some(Request::Allocate(ask)) = message.as_ref().map(Request::from) else { return Outcome::Expired };
    match judge(lease, &ask, now) {
        LeaseVerdict::Mine(grant) => Outcome::Created(grant),
        LeaseVerdict::Existing(grant) => Outcome::Existing(grant),
        LeaseVerdict::KeyReused => Outcome::KeyReused,
        LeaseVerdict::Superseded => Outcome::Superseded,
        LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => Outcome::Expired,
    }
}

/// A sandbox that is as this return wanted it; or that it can never end any more, which is only said `too_late`: then
/// nothing that it could end can still be claimed.
fn returned(
    record: &PersistedRequest,
    sandbox_id: &SandboxId,
    sandbox: Option<&Sandbox>,
    too_late: bool,
) -> Option<Outcome> {
    let Some(sandbox) = sandbox else { return too_late.then_some(Outcome::SandboxNotFound) };
    let refused = match judge_return(sandbox, &return_of(record, sandbox_id)) {
        ReturnVerdict::AlreadyReturned(deletion_requested_at) => {
            let (sandbox_id, status) = (sandbox.id.clone(), sandbox.status);
            return Some(Outcome::Marked { sandbox_id, deletion_requested_at, status });
        }
        ReturnVerdict::End(_) | ReturnVerdict::Newer => return None,
        ReturnVerdict::Expired => Outcome::AllocationExpired,
        ReturnVerdict::NotOwner => Outcome::NotOwner,
        ReturnVerdict::Superseded => Outcome::Superseded,
    };
    too_late.then_some(refused)
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
