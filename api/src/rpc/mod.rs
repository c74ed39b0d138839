//! Request and reply: requests sent through the requests queue, and their outcomes received through the reply queue, or stored
//! for `GET /v1/requests/{id}`.
//!
//! ```text
//! shed? ─▶ waiter ─▶ send ─▶ wait ─┬─ reply ──────────────▶ outcome
//!                                  └─ time is up ─▶ record ─▶ 202, and the same waiter lingers until the deadline:
//!                                                             a late reply completes the record
//! respond-async: record ─▶ send ─▶ 202; the worker completes the record, in the claim's own transaction
//! ```
//! Invariants: nothing is sent for a call that was shed; one waiter, one pending slot, from before the send to the end, so no
//! reply falls between the wait and the record; a 202 is returned only after its record was written and its message sent. A
//! client that ends its half of the connection still gets its answer; one that breaks it drops its waiter, nothing else. The HTTP response is made by `response`.

pub(crate) mod backlog;
pub(crate) mod reply_queue;
pub(crate) mod reply_router;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use broker_domain::{Outcome, PersistedRequest, RequestState, TenantName, Times};
use broker_messages::Request;
use broker_queue::{Outgoing, ReplyQueueName, Sender};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::trace::Span;
use broker_store::{Store, StoreError, Write, retry_on_conflict};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::limits::{ASYNC_DEADLINE, SHORTEST_DEADLINE};
use crate::metrics::{self, WaitEnd};
use crate::request::rate_limit::Rate;
use crate::response::problem::Problem;
use crate::rpc::backlog::RequestBacklog;
use crate::rpc::reply_queue::{Channel, Link};
use crate::rpc::reply_router::{ReplyRouter, Waiter};

/// The time that a send may take though its caller waits for less, or not at all: the three attempts of one call (`aws`).
pub(crate) const SEND_PATIENCE: Duration = Duration::from_secs(6);
/// A worker that ends after `reply_by` stores the outcome itself, so from then on only replies that are under way can still
/// be needed.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Pauses between attempts to store a late outcome. If all fail, `GET` finds it at the lease.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(3)];

/// The progress of a request within its wait.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It ended.
    Ended(Outcome),
    /// It has not; its record says so, too.
    StillQueued,
}

/// A request as queued message and as record.
pub(crate) struct PendingRequest {
    pub(crate) times: Times,
    pub(crate) text: String,
    pub(crate) record: PersistedRequest,
}

/// Sends requests to the workers and waits for replies. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct RequestReply {
    pub(crate) link: Link,
    pub(crate) replies: ReplyRouter,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) lifecycle: Lifecycle,
    /// How long the requests queue is.
    pub(crate) backlog: RequestBacklog,
    /// How many asynchronous requests a tenant may send in a second, if that is bounded.
    pub(crate) async_rate: Option<Arc<Rate>>,
    /// How long the process may take to end.
    pub(crate) drain: Duration,
    /// The waiters that linger.
    pub(crate) lingering: TaskTracker,
}

impl RequestReply {
    /// The times of a request made now whose caller waits for `wait`.
    pub(crate) fn times(&self, wait: Duration) -> Times {
        let now = self.clock.now();
        Times { enqueued_at: now, reply_by: now.plus(wait), deadline: now.plus(wait.max(SHORTEST_DEADLINE)) }
    }

    /// The times of an asynchronous request made now.
    pub(crate) fn times_of_async(&self) -> Times {
        let now = self.clock.now();
        Times { enqueued_at: now, reply_by: now, deadline: now.plus(ASYNC_DEADLINE) }
    }

    /// Sends a request of `tenant`, and waits until `reply_by` at most.
    pub(crate) async fn call(&self, request: &Request, tenant: &TenantName) -> Result<Progress, Problem> {
        let asked = self.clock.instant();
        // What may wait in a line.
        let recorded = matches!(request, Request::Allocate(ask) if ask.may_wait);
        let channel = self.channel()?;
        self.backlog.sends();
        let mut sending = channel.requests.sending();
        let PendingRequest { times, text, record } =
            pending(request, tenant, &channel.reply_to, sending.traceparent());
        let mut waiter =
            self.replies.register(record.request_id, Some(tenant)).inspect_err(|_| metrics::shed())?;
        if recorded {
            // Its claim is conditional on the record, which outlives this process.
            let (Write::Applied | Write::Rejected(_)) = self.record(&record).await?;
            crash_points::point(Point::Recorded);
        }
        let wait = times.reply_by.since(times.enqueued_at);
        let mut waited = pin!(sleep(wait));
        let sent = send_within(
            wait.max(SEND_PATIENCE),
            &channel.requests,
            of(tenant, text),
            &mut sending,
            "request",
        );
        if let Err(refused) = sent.await {
            return if recorded { self.take_back(&record, refused).await } else { Err(refused) };
        }
        drop(sending);
        crash_points::point(Point::Waiting);
        tokio::select! {
            biased;
            outcome = waiter.reply() => {
                crash_points::point(Point::ReplyArrived);
                metrics::reply_waited(self.clock.instant().duration_since(asked));
                metrics::wait_ended(WaitEnd::Answered);
                Ok(Progress::Ended(outcome))
            }
            () = waited.as_mut() => {
                metrics::wait_ended(if recorded { WaitEnd::Waiting } else { WaitEnd::RanOut });
                self.leave(waiter, record, times).await
            }
            () = self.drain_is_near() => {
                metrics::wait_ended(WaitEnd::Drained);
                self.leave(waiter, record, times).await
            }
        }
    }

    /// Records a request of `tenant`, then sends it, without waiting for the reply.
    pub(crate) async fn enqueue(&self, request: &Request, tenant: &TenantName) -> Result<Progress, Problem> {
        if let Some(rate) = &self.async_rate {
            rate.admit_anywhere(tenant.as_str(), self.clock.instant())?;
        }
        let channel = self.channel()?;
        self.backlog.sends();
        let mut sending = channel.requests.sending();
        let PendingRequest { text, record, .. } =
            pending(request, tenant, &channel.reply_to, sending.traceparent());
        // If it exists already, this is our own write, retried: the id was minted for this call.
        let (Write::Applied | Write::Rejected(_)) = self.record(&record).await?;
        crash_points::point(Point::Recorded);
        let sent = send_within(SEND_PATIENCE, &channel.requests, of(tenant, text), &mut sending, "request");
        let Err(refused) = sent.await else { return Ok(Progress::StillQueued) };
        self.take_back(&record, refused).await
    }

    /// Takes back a recorded request that was not sent, as `refused` says. SQS may have the message all the same: if the record is
    /// cancelled, it never claims, and a 503 is true; if a worker was faster, the 202 is.
    async fn take_back(&self, record: &PersistedRequest, refused: Problem) -> Result<Progress, Problem> {
        let id = record.request_id;
        match retry_on_conflict(&self.entropy, || self.store.requests.cancel(id)).await {
            Ok(Write::Applied) => Err(refused),
            Ok(Write::Rejected(())) => match self.store.requests.get(id).await {
                // Our own write, which was retried.
                Ok(Some(PersistedRequest { state: RequestState::Ended(Outcome::Cancelled), .. })) => {
                    Err(refused)
                }
                Ok(_) | Err(_) => Ok(Progress::StillQueued),
            },
            Err(not_cancelled) => Err(Problem::from(not_cancelled)),
        }
    }

    /// Records a request. A worker that is faster may be writing its record at this moment.
    async fn record(&self, record: &PersistedRequest) -> Result<Write<Box<PersistedRequest>>, StoreError> {
        retry_on_conflict(&self.entropy, || self.store.requests.record(record)).await
    }

    fn channel(&self) -> Result<Arc<Channel>, Problem> {
        self.link.channel().ok_or_else(|| Problem::unavailable("The queues cannot be reached."))
    }

    /// Resolves when only the part of the drain time is left that recording and closing need.
    pub(crate) async fn drain_is_near(&self) {
        self.lifecycle.soft.cancelled().await;
        sleep(self.drain * 2 / 3).await;
    }

    /// Records a request that outlasted its caller's wait, and lets its waiter linger. One that is recorded already needs neither:
    /// its outcome is stored in the claim's own write, or before it is told, and its handler reads the record.
    async fn leave(
        &self,
        waiter: Waiter,
        record: PersistedRequest,
        times: Times,
    ) -> Result<Progress, Problem> {
        if record.asynchronous {
            return Ok(Progress::StillQueued);
        }
        match self.record(&record).await? {
            Write::Rejected(found) => match found.state {
                // A worker stored the outcome after `reply_by`, before this.
                RequestState::Ended(outcome) => return Ok(Progress::Ended(outcome)),
                // Our own write, which was retried.
                RequestState::Queued => {}
            },
            Write::Applied => {}
        }
        crash_points::point(Point::Recorded);
        self.lingering.spawn(self.clone().linger(waiter, record, times));
        Ok(Progress::StillQueued)
    }

    /// Completes the record from a late reply.
    async fn linger(self, mut waiter: Waiter, record: PersistedRequest, times: Times) {
        let from_now = |until: broker_domain::Timestamp| sleep(until.since(self.clock.now()));
        let outcome = tokio::select! {
            biased;
            outcome = waiter.reply() => outcome,
            () = from_now(times.deadline) => return,
            () = async {
                self.lifecycle.soft.cancelled().await;
                from_now(times.reply_by.plus(UNDER_WAY)).await;
            } => return,
            () = self.lifecycle.hard.cancelled() => return,
        };
        drop(waiter);
        let id = record.request_id;
        let ended = PersistedRequest { state: RequestState::Ended(outcome), ..record };
        for pause in PAUSES {
            sleep(pause).await;
            match retry_on_conflict(&self.entropy, || self.store.requests.complete(&ended)).await {
                Ok(_stored_or_ended_before) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(request_id = %id, error, "late outcome not stored");
                }
            }
        }
    }
}

/// Sends the message of `what`. A queue that is down must not hold callers for longer than `patience`: a message that was not
/// taken for a call by then is dropped, and one that was may arrive.
pub(crate) async fn send_within(
    patience: Duration,
    queue: &Sender,
    message: impl Into<Outgoing>,
    sending: &mut Span,
    what: &str,
) -> Result<(), Problem> {
    let (failed, refused) = tokio::select! {
        biased;
        sent = queue.send(message) => match sent {
            Ok(()) => return Ok(()),
            Err(error) => {
                ("not_sent", Problem::unavailable(format!("The {what} could not be enqueued.")).because(error))
            }
        },
        () = sleep(patience) => {
            ("timeout", Problem::unavailable(format!("The {what} could not be enqueued in time.")))
        }
    };
    sending.failed(failed);
    Err(refused)
}

/// A message of `tenant`, for SQS.
fn of(tenant: &TenantName, text: String) -> Outgoing {
    Outgoing::from(text).of_tenant(Some(tenant.clone()))
}

/// `request` as its message, with the trace context, and as the record of a queued request.
pub(crate) fn pending(
    request: &Request,
    tenant: &TenantName,
    reply_to: &ReplyQueueName,
    traceparent: Option<String>,
) -> PendingRequest {
    let message = request.message(reply_to.as_str()).traced(traceparent).of_tenant(tenant.clone());
    let (times, text) = (message.times(), message.encode());
    let record = request.record(Some(text.clone()), RequestState::Queued);
    PendingRequest { times, text, record }
}
