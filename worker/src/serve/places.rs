//! Places: read, answered, left, and walked once a minute.
//!
//! Order: **write state → send reply → delete place**. A reply that cannot be sent is found by asking; a place that is not
//! deleted grants nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_domain::policy::ANY_FLAVOUR;
use broker_domain::waiting::{Marks, Place, minted_at};
use broker_domain::{AllocateRequest, LeaseVerdict, Outcome, judge};
use broker_messages::{Request, RequestMessage};
use broker_queue::ReplyQueueName;
use broker_runtime::crash_points::{self, Point};
use broker_store::{Pages, StoreError};

use crate::finality::ReplyError;
use crate::jobs::Jobs;

/// Places that a walk reads at a time.
const WALKED: u16 = 500;
/// Between two walks of one process.
const WALK_EVERY: Duration = Duration::from_secs(60);
/// The same while few wait: a walk of them costs next to nothing.
const SHORT_WALK_EVERY: Duration = Duration::from_secs(10);
/// How many are few.
const FEW: u64 = 1_000;

/// When this process walks the lines next, in milliseconds. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NextWalk(Arc<AtomicU64>);

/// Walks every line, unless this process did a moment ago.
pub(super) async fn walk_when_due(jobs: &Jobs) -> Result<(), StoreError> {
    let now = jobs.clock.now();
    if now.as_ms() < jobs.next_walk.0.load(Ordering::Relaxed) {
        return Ok(());
    }
    let waiting = walk(jobs).await?;
    let next = now.plus(if waiting < FEW { SHORT_WALK_EVERY } else { WALK_EVERY });
    jobs.next_walk.0.store(next.as_ms(), Ordering::Relaxed);
    Ok(())
}

/// A place that can be granted, with its message.
pub(super) struct WaitingRequest {
    pub(super) place: Place,
    pub(super) message: RequestMessage,
    pub(super) ask: AllocateRequest,
    pub(super) reply_to: ReplyQueueName,
}

/// The place with its message, if that can be read.
pub(super) fn read(jobs: &Jobs, place: Place) -> Option<WaitingRequest> {
    let names = jobs.urls.names();
    let read =
        RequestMessage::decode(&place.message).map_err(|error| error.to_string()).and_then(|message| {
            let reply_to = names.parse_reply(&message.reply_to).map_err(|error| error.to_string())?;
            match Request::from(&message) {
                Request::Allocate(ask) if ask.request_id == place.request_id => Ok((message, ask, reply_to)),
                Request::Allocate(_) | Request::Return(_) => Err("it is another request's".to_owned()),
            }
        });
    match read {
        Ok((message, ask, reply_to)) => Some(WaitingRequest { place, message, ask, reply_to }),
        Err(error) => {
            metrics::counter!("broker_waiting_unreadable_total").increment(1);
            tracing::error!(request_id = %place.request_id, line = %place.line, "unreadable place passed over: {error}");
            None
        }
    }
}

/// Stores what became of a place whose time is over, and deletes it.
pub(super) async fn overdue(jobs: &Jobs, waiter: &WaitingRequest) -> Result<(), StoreError> {
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

/// Stores and tells how a place's request ended, and deletes the place. A reply that cannot be sent is found by asking.
pub(super) async fn end(jobs: &Jobs, waiter: &WaitingRequest, outcome: Outcome) -> Result<(), StoreError> {
    let request = Request::Allocate(waiter.ask.clone());
    // A grant stored its outcome itself.
    let outcome = if matches!(outcome, Outcome::Created(_)) {
        outcome
    } else {
        jobs.replies.store_outcome(&request, outcome).await?
    };
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
    leave(jobs, waiter).await
}

pub(super) async fn leave(jobs: &Jobs, waiter: &WaitingRequest) -> Result<(), StoreError> {
    crash_points::point(Point::BeforeLeave);
    jobs.store.waiting.leave(&waiter.place.line, waiter.place.request_id).await
}

pub(super) fn waited(jobs: &Jobs, waiter: &WaitingRequest, outcome: &'static str) {
    let since = jobs.clock.now().since(waiter.ask.times.enqueued_at);
    metrics::histogram!("broker_waiting_seconds", "outcome" => outcome).record(since);
}

/// Walks every line: counts it, keeps its marks, and ends what is overdue. Returns how many wait.
async fn walk(jobs: &Jobs) -> Result<u64, StoreError> {
    let now = jobs.clock.now();
    let policy = jobs.policy.now().unwrap_or_default();
    let mut waiting: BTreeMap<String, (u64, Duration)> = BTreeMap::new();
    for listed in jobs.store.waiting.lines(now).await? {
        let (mut marks, mut oldest) = (Marks::default(), None);
        let mut pages = Pages::new(|after| jobs.store.waiting.places(&listed.line, after, WALKED));
        while let Some(places) = pages.next().await? {
            for place in places {
                if place.deadline < now {
                    if let Some(waiter) = read(jobs, place) {
                        overdue(jobs, &waiter).await?;
                    }
                    continue;
                }
                marks.push(place.request_id);
                oldest = oldest.or_else(|| Some(minted_at(place.request_id)));
            }
        }
        let prefix = listed.line.prefix.as_ref();
        let flavour = policy.flavours().iter().find(|(_, flavour)| Some(&flavour.prefix) == prefix);
        let flavour = flavour.map_or(ANY_FLAVOUR, |(name, _)| name.as_str()).to_owned();
        let (count, age) = waiting.entry(flavour).or_default();
        *count += marks.length;
        *age = (*age).max(oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)));
        // A line that stands still is not written.
        if marks != listed.marks {
            jobs.store.waiting.walked(&listed.line, &marks, now).await?;
        }
    }
    let all = waiting.values().map(|(count, _)| count).sum();
    for (flavour, (count, age)) in waiting {
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        metrics::gauge!("broker_waiting_requests", "flavour" => flavour.clone()).set(count);
        metrics::gauge!("broker_waiting_oldest_seconds", "flavour" => flavour).set(age.as_secs_f64());
    }
    Ok(all)
}
