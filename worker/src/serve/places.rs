//! Places: read, answered, left, and walked once a minute.
//!
//! Order: **write state → send reply → delete place**. A reply that cannot be sent is found by asking; a place that is not
//! deleted grants nothing. What can never be served is buried ([`bury`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_domain::waiting::{Marks, Place};
use broker_domain::{AllocateRequest, LeaseVerdict, Outcome, Reason, Timestamp, judge};
use broker_messages::{Request, RequestMessage};
use broker_queue::ReplyQueueName;
use broker_runtime::crash_points::{self, Point};
use broker_store::{Pages, PlaceItem, PlaceRows, StoreError};

use super::bury::{self, Why};
use super::soon;
use super::turns::ServeSeat;
use crate::finality::ReplyError;
use crate::jobs::Jobs;

/// Places that a walk reads at a time.
const WALKED: u16 = 500;
/// Between two walks of one process.
const WALK_EVERY: Duration = Duration::from_secs(60);
/// The same while few wait: a walk of them costs next to nothing.
const SHORT_WALK_EVERY: Duration = Duration::from_secs(10);
/// How many are few.
const FEW: u64 = 100;

/// When this process walks the lines next, in milliseconds, and how many waited at the last walk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NextWalk(Arc<(AtomicU64, AtomicU64)>);

impl NextWalk {
    /// How long it is between two walks.
    fn every(&self) -> Duration {
        if self.0.1.load(Ordering::Relaxed) < FEW { SHORT_WALK_EVERY } else { WALK_EVERY }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        now.as_ms() >= self.0.0.load(Ordering::Relaxed)
    }

    fn walked(&self, waiting: u64, now: Timestamp) {
        self.0.1.store(waiting, Ordering::Relaxed);
        self.0.0.store(now.plus(self.every()).as_ms(), Ordering::Relaxed);
    }
}

/// Walks every line, if this process did not a moment ago, and it is its turn among the workers: together they walk as often as
/// one alone.
pub(super) async fn walk_in_turn(jobs: &Jobs, seat: ServeSeat) -> Result<(), StoreError> {
    if seat.has(jobs.clock.now(), jobs.next_walk.every()) { walk_when_due(jobs).await } else { Ok(()) }
}

/// Walks every line, unless this process did a moment ago.
pub(super) async fn walk_when_due(jobs: &Jobs) -> Result<(), StoreError> {
    let now = jobs.clock.now();
    if jobs.next_walk.is_due(now) {
        jobs.next_walk.walked(walk(jobs).await?, now);
    }
    Ok(())
}

/// A place that can be granted, with its message.
pub(super) struct ParkedRequest {
    pub(super) place: Place,
    pub(super) message: RequestMessage,
    pub(super) ask: AllocateRequest,
    pub(super) reply_to: ReplyQueueName,
}

/// What a place's message says; or why that cannot be read.
fn read(jobs: &Jobs, place: &Place) -> Result<(RequestMessage, AllocateRequest, ReplyQueueName), Why> {
    let message = RequestMessage::decode(&place.message)
        .map_err(|error| (bury::reason(error.reason_code()), error.to_string()))?;
    let reply_to = jobs
        .urls
        .names()
        .parse_reply(&message.reply_to)
        .map_err(|error| (Reason::ForeignReplyQueue, error.to_string()))?;
    match Request::from(&message) {
        Request::Allocate(ask) if ask.request_id == place.request_id => Ok((message, ask, reply_to)),
        Request::Allocate(_) | Request::Return(_) => {
            Err((Reason::Malformed, "its place is another request's".to_owned()))
        }
    }
}

/// The places of a page that can be served, with their messages, in their order. The others are buried, but for those that a newer
/// worker can read: they have until their deadline.
pub(super) async fn readable(jobs: &Jobs, rows: PlaceRows) -> Result<Vec<ParkedRequest>, StoreError> {
    for item in rows.unreadable {
        let why =
            (Reason::MalformedItem, format!("the place {} of line {}: {}", item.key, item.line, item.why));
        bury::item(jobs, &item, why).await?;
    }
    let now = jobs.clock.now();
    let mut readable = Vec::with_capacity(rows.places.len());
    for place in rows.places {
        match read(jobs, &place) {
            Ok((message, ask, reply_to)) => readable.push(ParkedRequest { place, message, ask, reply_to }),
            Err((Reason::NewerVersion, _)) if now <= place.deadline => {}
            Err(why) => drop(bury::item(jobs, &PlaceItem::from(&place), why).await?),
        }
    }
    Ok(readable)
}

/// Stores what became of a place whose time is over, and deletes it.
pub(super) async fn overdue(jobs: &Jobs, waiter: &ParkedRequest) -> Result<(), StoreError> {
    let lease = jobs.store.leases.get(&waiter.ask.lease_key).await?;
    let outcome = match judge(lease.as_ref(), &waiter.ask, jobs.clock.now()) {
        LeaseVerdict::Free | LeaseVerdict::PastExpiry(_) => Outcome::Expired,
        LeaseVerdict::Mine(grant) => Outcome::Created(grant),
        LeaseVerdict::Existing(grant) => Outcome::Existing(grant),
        LeaseVerdict::KeyReused => Outcome::KeyReused,
        LeaseVerdict::Superseded => Outcome::Superseded,
    };
    waited(jobs, waiter, outcome.as_str());
    end(jobs, waiter, outcome).await
}

/// Stores and tells how a place's request ended, and deletes the place.
pub(super) async fn end(jobs: &Jobs, waiter: &ParkedRequest, outcome: Outcome) -> Result<(), StoreError> {
    let request = Request::Allocate(waiter.ask.clone());
    // A grant stored its outcome itself.
    let outcome = if matches!(outcome, Outcome::Created(_)) {
        outcome
    } else {
        let stood_in = matches!(outcome, Outcome::Expired).then_some(&waiter.place.line);
        jobs.replies.store_outcome(&request, outcome, stood_in).await?
    };
    // A replay may take this end back, and park it anew; its place went with it.
    let is_dead = matches!(outcome, Outcome::DeadLettered { .. });
    tell(jobs, waiter, outcome).await?;
    if is_dead { Ok(()) } else { leave(jobs, waiter).await }
}

/// Tells a call that waits how its request ended. A reply that cannot be sent is found by asking.
pub(super) async fn tell(jobs: &Jobs, waiter: &ParkedRequest, outcome: Outcome) -> Result<(), StoreError> {
    let request = Request::Allocate(waiter.ask.clone());
    let waits = !waiter.message.asynchronous && jobs.clock.now() <= waiter.message.times().reply_by;
    if waits
        && let Err(error) = jobs.replies.reply(&waiter.message, &request, &waiter.reply_to, outcome).await
    {
        match error {
            ReplyError::Store(error) => return Err(error),
            ReplyError::Send(error) => {
                tracing::info!(request_id = %waiter.place.request_id, "not told, the outcome is stored: {error}");
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

/// Walks every line: counts it, keeps its marks, and ends what is overdue. Returns how many wait.
async fn walk(jobs: &Jobs) -> Result<u64, StoreError> {
    let now = jobs.clock.now();
    let mut waiting = 0;
    for listed in jobs.store.waiting.lines(now).await? {
        let (mut marks, mut over) = (Marks::default(), Vec::new());
        let mut pages = Pages::new(|after| jobs.store.waiting.places(&listed.line, after, WALKED));
        while let Some(rows) = pages.next().await? {
            for waiter in readable(jobs, rows).await? {
                let place = &waiter.place;
                if place.deadline < now {
                    over.push((place.line.clone(), place.request_id));
                    continue;
                }
                jobs.soon.note(place, now);
                marks.push(place.request_id);
            }
        }
        soon::all(jobs, over).await;
        waiting += marks.length;
        // A line that stands still is not written.
        if marks != listed.marks {
            jobs.store.waiting.walked(&listed.line, &marks, now).await?;
        }
    }
    Ok(waiting)
}
