//! Parked requests: the end of one, its reply, and the deletion of its place.
//!
//! Order: **write state → send reply → delete place**. If the reply cannot be sent, `GET` finds the stored outcome; a place that is
//! not deleted grants nothing.

use broker_domain::waiting::Place;
use broker_domain::{AllocateRequest, Outcome};
use broker_messages::{Request, RequestMessage};
use broker_queue::ReplyQueueName;
use broker_runtime::crash_points::{self, Point};
use broker_store::StoreError;

use crate::finality::ReplyError;
use crate::jobs::Jobs;

/// A place that can be granted, with its message.
pub(super) struct ParkedRequest {
    pub(super) place: Place,
    pub(super) message: RequestMessage,
    pub(super) ask: AllocateRequest,
    pub(super) reply_to: ReplyQueueName,
}

/// Stores and tells how a place's request ended, and deletes the place. If its record says that it waits on, nothing is told and the
/// place stays: returns whether it ended.
pub(super) async fn end(jobs: &Jobs, waiter: &ParkedRequest, outcome: Outcome) -> Result<bool, StoreError> {
    let request = Request::Allocate(waiter.ask.clone());
    // A grant stored its outcome itself.
    let outcome = if matches!(outcome, Outcome::Created(_)) {
        outcome
    } else {
        let stood_in = matches!(outcome, Outcome::Expired).then_some(&waiter.place.line);
        let Some(stored) = jobs.replies.store_outcome(&request, outcome, stood_in).await? else {
            return Ok(false);
        };
        stored
    };
    // A replay may take this end back, and park it anew; its place went with it.
    let is_dead = matches!(outcome, Outcome::DeadLettered { .. });
    tell(jobs, waiter, outcome).await?;
    if !is_dead {
        leave(jobs, waiter).await?;
    }
    Ok(true)
}

/// Tells a call that waits how its request ended, which is stored. A reply that cannot be sent is found by asking.
pub(super) async fn tell(jobs: &Jobs, waiter: &ParkedRequest, outcome: Outcome) -> Result<(), StoreError> {
    let request = Request::Allocate(waiter.ask.clone());
    let waits = !waiter.message.asynchronous && jobs.clock.now() <= waiter.message.times().reply_by;
    if waits && let Err(error) = jobs.replies.tell(&waiter.message, &request, &waiter.reply_to, outcome).await
    {
        match error {
            ReplyError::Store(error) => return Err(error),
            ReplyError::Send(error) => {
                tracing::info!(request_id = %waiter.place.request_id, "reply not sent, the outcome is stored: {error}");
            }
        }
    }
    Ok(())
}

pub(super) async fn leave(jobs: &Jobs, waiter: &ParkedRequest) -> Result<(), StoreError> {
    crash_points::point(Point::BeforeLeave);
    jobs.store.waiting.leave(&waiter.place.line, waiter.place.request_id).await
}

pub(super) fn waited(jobs: &Jobs, waiter: &ParkedRequest, outcome: &'static str) {
    let since = jobs.clock.now().since(waiter.ask.times.enqueued_at);
    metrics::histogram!("broker_waiting_seconds", "outcome" => outcome).record(since);
}
