//! Request and reply: a question goes into the requests queue, its answer comes through the reply queue, or is found at
//! `GET /v1/requests/{id}`.
//!
//! ```text
//! shed? ─▶ waiter ─▶ send ─▶ wait ─┬─ reply ──────────────▶ outcome
//!                                  └─ time is up ─▶ record ─▶ 202, and the same waiter lingers until the deadline:
//!                                                             a late reply completes the record
//! ```
//! Invariants: nothing is sent for a call that was shed; one waiter, one pending slot, from before the send to the end,
//! so no reply falls between the wait and the record; a 202 is said only after its record was written. A client that
//! leaves takes its waiter along, nothing else. What it does not do: tell an outcome over HTTP.

use std::time::Duration;

use broker_common::clock::Clock;
use broker_common::crash::{self, Point};
use broker_common::domain::{Outcome, PersistedRequest, RequestId, RequestState, Times};
use broker_common::lifecycle::Lifecycle;
use broker_common::messages::{Ask, RequestMessage};
use broker_common::store::{Recorded, Store};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::limits::SHORTEST_DEADLINE;
use crate::measures;
use crate::problem::Problem;
use crate::replies::{Replies, Waiter};
use crate::reply_queue::Link;

/// A worker that ends after `reply_by` stores the outcome itself, so from then on only replies that are under way can
/// still be needed.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Pauses between attempts to store a late outcome. If all fail, `GET` finds it at the lease.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(3)];

/// What became of a question within its wait.
#[derive(Debug)]
pub(crate) enum Answered {
    /// It ended.
    Ended(Outcome),
    /// It did not yet; its record says so, too.
    StillQueued,
}

/// Asks the workers. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) link: Link,
    pub(crate) replies: Replies,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) lifecycle: Lifecycle,
    /// How long the process may take to end.
    pub(crate) drain: Duration,
    /// The waiters that linger.
    pub(crate) lingering: TaskTracker,
}

impl Exchange {
    /// The times of a question asked now whose caller waits for `wait`.
    pub(crate) fn times(&self, wait: Duration) -> Times {
        let now = self.clock.now();
        Times { enqueued_at: now, reply_by: now.plus(wait), deadline: now.plus(wait.max(SHORTEST_DEADLINE)) }
    }

    /// Asks, and waits until `reply_by` at most.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answered, Problem> {
        let record = record_of(&ask);
        let times = times_of(&ask);
        let asked = Instant::now();
        let channel =
            self.link.channel().ok_or_else(|| Problem::unavailable("The queues cannot be reached."))?;
        let mut waiter = self.replies.register(record.request_id).inspect_err(|_| measures::shed())?;
        let message = match &ask {
            Ask::Allocate(ask) => RequestMessage::allocate(ask, channel.reply_to.as_str()),
            Ask::Mark(mark) => RequestMessage::mark(mark, channel.reply_to.as_str()),
        };
        channel
            .requests
            .send(message.encode())
            .await
            .map_err(|error| Problem::unavailable("The request could not be enqueued.").because(error))?;
        crash::point(Point::Waiting);
        let until = asked + times.reply_by.since(times.enqueued_at);
        tokio::select! {
            biased;
            outcome = waiter.reply() => {
                crash::point(Point::ReplyArrived);
                measures::reply_waited(asked.elapsed());
                Ok(Answered::Ended(outcome))
            }
            () = sleep_until(until) => self.leave(waiter, record, times).await,
            () = self.drain_is_near() => self.leave(waiter, record, times).await,
        }
    }

    /// Part of the drain time is left for recording those who still wait, and for the end of their connections.
    async fn drain_is_near(&self) {
        self.lifecycle.soft.cancelled().await;
        sleep(self.drain * 2 / 3).await;
    }

    /// Records a question that outlasted its caller's wait, and lets its waiter linger.
    async fn leave(
        &self,
        waiter: Waiter,
        record: PersistedRequest,
        times: Times,
    ) -> Result<Answered, Problem> {
        match self.store.record_request(&record).await? {
            Recorded::AlreadyThere(found) => match found.state {
                // A worker ended it after `reply_by` and said so here first.
                RequestState::Ended(outcome) => return Ok(Answered::Ended(outcome)),
                // Our own write, which was retried.
                RequestState::Queued => {}
            },
            Recorded::New => {}
        }
        crash::point(Point::Recorded);
        self.lingering.spawn(self.clone().linger(waiter, record, times));
        Ok(Answered::StillQueued)
    }

    /// Completes the record from a late reply.
    async fn linger(self, mut waiter: Waiter, record: PersistedRequest, times: Times) {
        let from_now = |until: broker_common::domain::Timestamp| sleep(until.since(self.clock.now()));
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
            match self.store.complete_request(&ended).await {
                Ok(_stored_or_ended_before) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(request_id = %id, error, "could not store a late outcome");
                }
            }
        }
    }
}

fn times_of(ask: &Ask) -> Times {
    match ask {
        Ask::Allocate(ask) => ask.times,
        Ask::Mark(mark) => mark.times,
    }
}

/// The record of a question that is still queued.
fn record_of(ask: &Ask) -> PersistedRequest {
    let times = times_of(ask);
    let queued = |request_id: RequestId, track| PersistedRequest {
        request_id,
        track,
        lease_key: None,
        sandbox_id: None,
        state: RequestState::Queued,
        created_at: times.enqueued_at,
        deadline: times.deadline,
    };
    match ask {
        Ask::Allocate(ask) => PersistedRequest {
            lease_key: Some(ask.lease_key.clone()),
            ..queued(ask.request_id, ask.lease_key.track.clone())
        },
        Ask::Mark(mark) => PersistedRequest {
            sandbox_id: Some(mark.sandbox_id.clone()),
            ..queued(mark.request_id, mark.track.clone())
        },
    }
}
