//! Backlog: how long a request that is sent now would wait in the requests queue.
//!
//! The queue's depth, which readiness asks for every few seconds while there is something, divided by what the workers receive in a second. They say
//! that in their heartbeats, every five seconds while what they receive is old ([`heartbeat`]). Invariant: without a backlog
//! nothing is read but the depth, and nothing is shed; what is not known (no worker, or none that is behind) sheds nothing,
//! because the depth is what brings more workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use broker_domain::Timestamp;
use broker_store::heartbeat::{self, BEHIND, EVERY_WHILE_BEHIND};
use broker_store::{Instance, Role, Store, StoreError};

use crate::metrics;
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// A queue that is no deeper is no backlog.
const NO_BACKLOG: u64 = 100;
/// A worker that said this long ago that it is behind may have caught up.
const STALE: Duration = EVERY_WHILE_BEHIND.saturating_mul(3);
/// The longest `Retry-After` of a request that was shed, in seconds: more workers may have come.
const LONGEST_PAUSE_S: u64 = 30;

/// The last estimate. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestBacklog(Arc<SeenDepths>);

#[derive(Debug, Default)]
struct SeenDepths {
    wait_ms: AtomicU64,
    /// Whether this process sent a request since it was last asked.
    sent: AtomicBool,
}

impl RequestBacklog {
    /// How long the newest message waits, as far as is known.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.0.wait_ms.load(Ordering::Relaxed))
    }

    /// A request goes to the queue.
    pub(crate) fn sends(&self) {
        self.0.sent.store(true, Ordering::Relaxed);
    }

    /// Whether a request went to the queue since this was last asked.
    pub(crate) fn was_sent_to(&self) -> bool {
        self.0.sent.swap(false, Ordering::Relaxed)
    }

    /// Refuses a request whose caller waits for `patience` if that is too short.
    pub(crate) fn admit(&self, patience: Duration) -> Result<(), Problem> {
        let wait = self.wait();
        if wait <= patience {
            return Ok(());
        }
        metrics::shed();
        let behind_s = wait.saturating_sub(patience).as_secs().clamp(1, LONGEST_PAUSE_S);
        let told = format!("The queue is about {} s long; nothing was enqueued.", wait.as_secs());
        Err(Problem::new(Code::Overloaded, told).retry_after(behind_s))
    }

    /// Estimates anew for a queue in which so many messages are `visible`.
    pub(crate) async fn look(&self, visible: u64, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        let wait = if visible > NO_BACKLOG {
            estimate(visible, &store.instances.list().await?, now)
        } else {
            Duration::ZERO
        };
        self.0.wait_ms.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }
}

/// How long `visible` messages take the workers that are behind.
fn estimate(visible: u64, instances: &[Instance], now: Timestamp) -> Duration {
    let workers = instances.iter().filter(|one| one.role == Role::Worker && !heartbeat::is_gone(one, now));
    let is_behind = |one: &&Instance| {
        now.since(one.heartbeat) <= STALE && one.received.requests.is_some_and(|age| age >= BEHIND)
    };
    let drained: u64 = workers.filter(is_behind).filter_map(|one| one.requests_per_s).sum();
    match visible.saturating_mul(1_000).checked_div(drained) {
        Some(ms) => Duration::from_millis(ms),
        None => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use broker_store::Received;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn worker(age_s: u64, per_s: u64, ago_s: u64) -> Instance {
        let received = Received { requests: Some(Duration::from_secs(age_s)), ..Received::default() };
        let requests_per_s = (per_s > 0).then_some(per_s);
        let at = Timestamp::from_secs(NOW.as_secs() - ago_s);
        Instance { received, requests_per_s, ..Instance::new(Uuid::nil(), Role::Worker, at) }
    }

    #[test]
    fn a_queue_is_as_long_as_the_workers_that_are_behind_need_for_it() {
        let wait = |visible, instances: &[Instance]| estimate(visible, instances, NOW).as_secs();
        assert_eq!(wait(20_000, &[worker(5, 300, 1), worker(4, 200, 3)]), 40);
        assert_eq!(wait(20_000, &[worker(5, 300, 1), worker(0, 9_000, 1)]), 66, "one has just begun");
        assert_eq!(wait(20_000, &[]), 0, "no worker receives: the depth brings workers");
        assert_eq!(wait(20_000, &[worker(1, 300, 1)]), 0, "it keeps up");
        assert_eq!(wait(20_000, &[worker(5, 300, 16)]), 0, "it may have caught up");
        assert_eq!(wait(20_000, &[worker(5, 0, 1)]), 0);
        let api = Instance { role: Role::Api, ..worker(5, 300, 1) };
        assert_eq!(wait(20_000, &[api]), 0);
    }

    #[test]
    fn who_waits_longer_than_the_queue_is_is_admitted_and_nobody_else() {
        let backlog = RequestBacklog::default();
        assert!(backlog.admit(Duration::ZERO).is_ok());
        backlog.0.wait_ms.store(12_000, Ordering::Relaxed);
        assert!(backlog.admit(Duration::from_secs(12)).is_ok());
        let problem = backlog.admit(Duration::from_secs(10)).unwrap_err();
        assert_eq!(problem.code(), Code::Overloaded);
    }
}
