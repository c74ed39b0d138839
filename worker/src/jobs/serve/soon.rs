//! Deadlines before the next walk: each place is ended at its own deadline.
//!
//! Each process keeps the deadlines of the places that it parked or walked. If the process dies, the next walk finds them. If two
//! processes end the same place, the first outcome stays.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_domain::waiting::{Line, Place};
use broker_domain::{RequestId, Timestamp};
use broker_runtime::trace;
use broker_store::{PlaceRows, StoreError};
use tokio::task::JoinSet;

use super::bury;
use super::places::{end_if_answered, readable};
use crate::jobs::Jobs;

/// A deadline that is further away is left to the next walk, which is a minute away at most.
const SOON: Duration = Duration::from_secs(75);
/// The most that are kept; the walk finds the others.
const MOST: usize = 20_000;
/// Places that are ended at the same time.
const AT_ONCE: usize = 32;
/// When a place that could not be ended is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Places with a deadline before the next walk, each with the time at which it is ended. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SoonOver(Arc<Mutex<BTreeSet<(Timestamp, Line, RequestId)>>>);

impl SoonOver {
    fn kept(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, Line, RequestId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a place, if its deadline comes soon.
    pub(crate) fn note(&self, place: &Place, now: Timestamp) {
        let mut kept = self.kept();
        if place.deadline.since(now) <= SOON && kept.len() < MOST {
            kept.insert((place.deadline, place.line.clone(), place.request_id));
        }
    }

    /// Keeps a place that could not be ended.
    fn again(&self, line: Line, id: RequestId, now: Timestamp) {
        let mut kept = self.kept();
        if kept.len() < MOST {
            kept.insert((now.plus(AGAIN_AFTER), line, id));
        }
    }

    /// Takes those whose time is over.
    fn take_over(&self, now: Timestamp) -> Vec<(Line, RequestId)> {
        let (mut kept, mut over) = (self.kept(), Vec::new());
        while kept.first().is_some_and(|(deadline, ..)| *deadline < now)
            && let Some((_, line, id)) = kept.pop_first()
        {
            over.push((line, id));
        }
        over
    }

    /// How long it is until the first of them is over.
    pub(super) fn until_next(&self, now: Timestamp) -> Option<Duration> {
        self.kept().first().map(|(deadline, ..)| deadline.since(now) + Duration::from_millis(1))
    }
}

/// Ends the places whose time is over.
pub(super) async fn end(jobs: &Jobs) {
    all(jobs, jobs.soon.take_over(jobs.clock.now())).await;
}

/// Ends these places, some at a time, unless they are gone. One that cannot be ended now is tried again soon, and stops no other.
pub(super) async fn all(jobs: &Jobs, over: Vec<(Line, RequestId)>) {
    let (mut running, mut over) = (JoinSet::new(), over.into_iter());
    loop {
        while running.len() < AT_ONCE
            && let Some((line, id)) = over.next()
        {
            let jobs = jobs.clone();
            running.spawn(trace::carried(async move {
                if let Err(error) = one(&jobs, &line, id).await {
                    tracing::debug!(request_id = %id, "a place was not ended, tried again: {error}");
                    jobs.soon.again(line, id, jobs.clock.now());
                }
            }));
        }
        let Some(ended) = running.join_next().await else { return };
        ended.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()));
    }
}

async fn one(jobs: &Jobs, line: &Line, id: RequestId) -> Result<(), StoreError> {
    let Some(place) = jobs.store.waiting.place(line, id).await? else { return Ok(()) };
    let rows = PlaceRows { places: vec![place], unreadable: Vec::new() };
    for waiter in readable(jobs, rows).await {
        if waiter.place.deadline < jobs.clock.now() {
            bury::or_bury(jobs, &waiter, async || end_if_answered(jobs, &waiter).await).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use broker_domain::TenantName;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_ends_soon_is_kept_until_then_and_what_ends_later_is_not() {
        let (soon, now) = (SoonOver::default(), Timestamp::from_secs(1_000));
        let line = Line { tenant: TenantName::new("acme").unwrap(), prefix: None };
        let place = |id: u128, after: u64| Place {
            line: line.clone(),
            request_id: RequestId::from_uuid(Uuid::from_u128(id)),
            deadline: now.plus(Duration::from_secs(after)),
            message: String::new(),
        };
        for place in [place(1, 30), place(2, 5), place(3, 3_600), place(2, 5)] {
            soon.note(&place, now);
        }
        assert_eq!(soon.until_next(now), Some(Duration::from_millis(5_001)));
        assert!(soon.take_over(now.plus(Duration::from_secs(5))).is_empty());
        let over = soon.take_over(now.plus(Duration::from_secs(6)));
        assert_eq!(over, [(line.clone(), place(2, 5).request_id)]);
        assert_eq!(soon.take_over(now.plus(SOON)).len(), 1);
        assert_eq!(soon.until_next(now), None);
    }
}
