//! Dead letters of places: a request that waits in a line and can never be served becomes a dead letter.
//!
//! A line has no redrive, so the worker that reads such a place writes the dead letter itself. One transaction puts the dead letter,
//! ends the request and deletes the place. A replay opens the request again, and it parks at its old place. The place of a
//! request that has ended already is only deleted.

use broker_domain::{Outcome, Reason, RequestId, RequestState};
use broker_runtime::errors::chain;
use broker_runtime::panics::caught;
use broker_store::{PlaceItem, StoreError, Write, retry_on_conflict};

use super::parked::{ParkedRequest, tell, waited};
use crate::finality::Finality;
use crate::jobs::Jobs;
use crate::letters::was_kept;

/// Why a place can never be served: the reason, as a code and in words.
pub(super) type Why = (Reason, String);

/// Makes a place a dead letter. Rejected if the place changed since it was read, or its request does not wait there any
/// more; if that has ended, the place is deleted.
pub(super) async fn item(jobs: &Jobs, place: &PlaceItem, why: Why) -> Result<Write, StoreError> {
    let (id, now) = (jobs.entropy.uuid(), jobs.clock.now());
    let since = place.request_id().map_or(now, broker_domain::waiting::minted_at);
    let body = place.message.clone().unwrap_or_default();
    let letter = broker_dead_letters::of_place(id.to_string(), body, why, since, now);
    let buried = retry_on_conflict(&jobs.entropy, || jobs.store.waiting.bury(place, &letter)).await?;
    if buried.is_applied() {
        was_kept(&letter);
    } else if let Some(id) = place.request_id()
        && has_ended(jobs, id).await?
    {
        let (Write::Applied | Write::Rejected(())) = jobs.store.waiting.leave_as_read(place).await?;
    }
    Ok(buried)
}

/// Whether a place of this request is garbage: its record is gone, or says that it ended. As a dead letter it has not
/// ended for good: a replay may take that back.
pub(super) async fn has_ended(jobs: &Jobs, id: RequestId) -> Result<bool, StoreError> {
    let record = jobs.store.requests.get(id).await?;
    Ok(match record.map(|record| record.state) {
        Some(RequestState::Queued | RequestState::Ended(Outcome::DeadLettered { .. })) => false,
        Some(RequestState::Ended(_)) | None => true,
    })
}

/// Makes the place of a decoded request a dead letter, and sends the outcome to the caller that waits for it.
pub(super) async fn request(jobs: &Jobs, waiter: &ParkedRequest, why: Why) -> Result<(), StoreError> {
    let outcome = Outcome::DeadLettered { reason: why.0.as_str().to_owned() };
    if item(jobs, &PlaceItem::from(&waiter.place), why).await?.is_applied() {
        waited(jobs, waiter, outcome.as_str());
        tell(jobs, waiter, outcome).await?;
    }
    Ok(())
}

/// Does `work` for a place; the place becomes a dead letter if the error is final or `work` panics.
pub(super) async fn or_bury(
    jobs: &Jobs,
    waiter: &ParkedRequest,
    work: impl AsyncFnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match caught(work()).await {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => match of_error(&error) {
            Finality::Final(code) => request(jobs, waiter, (reason(code), chain(&error))).await,
            Finality::Passes | Finality::Refused(_) | Finality::Newer => Err(error),
        },
        None => request(jobs, waiter, panicked()).await,
    }
}

/// The finality of a table error for a place.
pub(super) const fn of_error(error: &StoreError) -> Finality {
    Finality::of(error, "malformed_item", "table_refused")
}

/// The reason of a code.
pub(super) fn reason(code: &str) -> Reason {
    Reason::parse(code).unwrap_or(Reason::Unknown)
}

/// The reason of a place whose handling panicked.
pub(super) fn panicked() -> Why {
    (Reason::Panicked, "the worker that handled it panicked: its log says where".to_owned())
}
