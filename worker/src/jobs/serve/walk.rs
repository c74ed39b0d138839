//! Walks of the lines: every place is counted, and overdue ones are ended, once a minute (every 10 s while few wait).
//!
//! A walk looks at the leases of the first that it meets, too: a key that got its sandbox elsewhere answers its other
//! requests, whether or not anything is free that they fit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::Timestamp;
use broker_domain::waiting::Marks;
use broker_runtime::trace;
use broker_store::{ListedLine, Pages, StoreError, Write};
use tokio::task::JoinSet;

use super::bury;
use super::parked::ParkedRequest;
use super::places::{end_if_answered, readable};
use super::soon;
use super::turns::ServeSeat;
use crate::jobs::Jobs;

/// Places that a walk reads at a time.
const WALKED: u16 = 500;
/// Between two walks of one process.
const WALK_EVERY: Duration = Duration::from_secs(60);
/// The same while few wait: a walk of them costs next to nothing.
const SHORT_WALK_EVERY: Duration = Duration::from_secs(10);
/// How many are few. Of so many a walk reads the leases.
const FEW: u64 = 100;

/// When this process walks the lines next, by its last walk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NextWalk(Arc<Mutex<LastWalk>>);

/// The last walk.
#[derive(Debug, Default)]
struct LastWalk {
    began: Option<Instant>,
    /// How many waited at the last one that came to its end.
    waiting: u64,
}

impl LastWalk {
    /// How long it is between two walks.
    const fn every(&self) -> Duration {
        if self.waiting < FEW { SHORT_WALK_EVERY } else { WALK_EVERY }
    }
}

impl NextWalk {
    fn last(&self) -> MutexGuard<'_, LastWalk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is between two walks.
    fn every(&self) -> Duration {
        self.last().every()
    }

    fn is_due(&self, now: Instant) -> bool {
        let last = self.last();
        last.began.is_none_or(|began| now.duration_since(began) >= last.every())
    }

    fn begins(&self, now: Instant) {
        self.last().began = Some(now);
    }

    fn counted(&self, waiting: u64) {
        self.last().waiting = waiting;
    }
}

/// Walks every line, if this process did not a moment ago, and it is its turn among the workers: together they walk as often as
/// one alone.
pub(super) async fn walk_in_turn(jobs: &Jobs, seat: ServeSeat) -> Result<(), StoreError> {
    if seat.has(jobs.clock.now(), jobs.next_walk.every()) { walk_when_due(jobs).await } else { Ok(()) }
}

/// Walks every line, unless this process did a moment ago. A walk that failed is not made again at once: a table that is asked too
/// much would be asked as much once more.
pub(super) async fn walk_when_due(jobs: &Jobs) -> Result<(), StoreError> {
    let began = jobs.clock.instant();
    if jobs.next_walk.is_due(began) {
        jobs.next_walk.begins(began);
        jobs.next_walk.counted(walk(jobs).await?);
    }
    Ok(())
}

/// Walks every line, and ends of the first what its key's lease answers. Returns how many wait. A line that cannot be walked to its
/// end is in no other's way.
async fn walk(jobs: &Jobs) -> Result<u64, StoreError> {
    let now = jobs.clock.now();
    let (mut waiting, mut first) = (Ok(0), Vec::new());
    for listed in jobs.store.waiting.lines_to_walk().await? {
        match walk_line(jobs, &listed, now, &mut first).await {
            Ok(length) => waiting = waiting.map(|waiting| waiting + length),
            Err(error) => {
                tracing::warn!(line = %listed.line, "not walked to its end, the next walk does: {error}");
                waiting = waiting.and(Err(error));
            }
        }
    }
    end_answered(jobs, first).await;
    waiting
}

/// Walks one line: counts it, keeps its marks, ends what is overdue, and adds to `first` what is to be asked for its lease.
async fn walk_line(
    jobs: &Jobs,
    listed: &ListedLine,
    now: Timestamp,
    first: &mut Vec<ParkedRequest>,
) -> Result<u64, StoreError> {
    let (mut marks, mut is_left) = (Marks::default(), true);
    let mut pages = Pages::new(|after| jobs.store.waiting.places(&listed.line, after, WALKED));
    while let Some(rows) = pages.next().await? {
        let mut over = Vec::new();
        is_left &= rows.places.is_empty() && rows.unreadable.is_empty();
        for waiter in readable(jobs, rows).await {
            let place = &waiter.place;
            if place.deadline < now {
                over.push((place.line.clone(), place.request_id));
                continue;
            }
            jobs.soon.note(place, now);
            marks.push(place.request_id);
            if (first.len() as u64) < FEW {
                first.push(waiter);
            }
        }
        soon::all(jobs, over).await;
    }
    // A line that stands still is not written. One that is listed no more is walked until it is found left.
    if listed.until < now {
        if is_left {
            match jobs.store.waiting.forget_line(listed).await {
                // The transaction in its way lists it anew.
                Ok(Write::Applied | Write::Rejected(())) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    } else if marks != listed.marks {
        jobs.store.waiting.walked(&listed.line, &marks, now, jobs.clock.now()).await?;
    }
    Ok(marks.length)
}

/// Ends those of `waiting` that their keys' leases answer. What cannot be ended now is met by the next walk, and stops no other.
async fn end_answered(jobs: &Jobs, waiting: Vec<ParkedRequest>) {
    let mut running = JoinSet::new();
    for waiter in waiting {
        let jobs = jobs.clone();
        running.spawn(trace::carried(async move {
            let ended = bury::or_bury(&jobs, &waiter, async || end_if_answered(&jobs, &waiter).await);
            if let Err(error) = ended.await {
                let request_id = waiter.place.request_id;
                tracing::debug!(%request_id, "its key's lease was not asked, the next walk does: {error}");
            }
        }));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()));
    }
}
