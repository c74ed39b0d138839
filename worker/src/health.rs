//! Health of a worker: whether it may receive messages, because its table answers, its pool is not paused, and its clock is trusted.
//!
//! Invariant: while the worker is unhealthy nothing is received, so an outage of the table spends no receives of messages
//! that cannot be handled, and a paused pool is not changed. A check costs one read; after a failed call or an outage it
//! also lists the index and tries a write.

use std::time::{Duration, Instant};

use broker_runtime::clock::Clock;
use broker_runtime::lifecycle::Lifecycle;
use broker_store::{PoolStatus, Store, StoreError};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// The interval of checks while the table answers.
const WHEN_HEALTHY: Duration = Duration::from_secs(5);
/// The interval of checks while it does not.
const WHEN_AWAY: Duration = Duration::from_millis(500);
/// How often a worker that is not healthy says so: at least once in each minute, for alarms that count minutes.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// The cached health; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    open: watch::Receiver<bool>,
    suspect: Arc<Notify>,
    /// When the table last failed a look.
    failed_at: watch::Receiver<Option<Instant>>,
}

/// The checks of a worker that starts: nothing is received before they begin.
#[derive(Debug)]
pub(crate) struct TableWatch {
    opened: watch::Sender<bool>,
    failing: watch::Sender<Option<Instant>>,
    suspect: Arc<Notify>,
}

impl TableWatch {
    /// Starts the checks, from the pool status `standing`, until the lifecycle's soft end; then the worker is unhealthy for good.
    pub(crate) fn start(self, store: Store, clock: Clock, lifecycle: &Lifecycle, standing: &PoolStatus) {
        let Self { opened, failing, suspect } = self;
        opened.send_replace(*standing == PoolStatus::Open);
        let stop = lifecycle.soft.clone();
        let watcher = Box::pin(watch_table(store, clock, opened, failing, suspect));
        tokio::spawn(async move { stop.run_until_cancelled_owned(watcher).await });
    }
}

impl Health {
    /// The health of a worker that starts, and its checks.
    pub(crate) fn starting() -> (Self, TableWatch) {
        let (opened, open) = watch::channel(false);
        let (failing, failed_at) = watch::channel(None);
        let suspect = Arc::new(Notify::new());
        let health = Self { open, suspect: Arc::clone(&suspect), failed_at };
        (health, TableWatch { opened, failing, suspect })
    }

    /// Open while messages should be received.
    pub(crate) fn gate(&self) -> watch::Receiver<bool> {
        self.open.clone()
    }

    /// Whether the pool may be changed, by the last look.
    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Until a look finds that the pool may not be changed; never once this process drains.
    pub(crate) async fn closed(&self) {
        if self.gate().wait_for(|open| !*open).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether messages are received: healthy, and not draining.
    pub(crate) fn is_ready(&self) -> bool {
        *self.open.borrow() && self.open.has_changed().is_ok()
    }

    /// Whether the table did not answer within this time before `now`.
    pub(crate) fn was_away_within(&self, time: Duration, now: Instant) -> bool {
        self.failed_at.borrow().is_some_and(|failed| now.saturating_duration_since(failed) < time)
    }

    /// A call to the table failed: look at once, and at writes too.
    pub(crate) fn suspect(&self) {
        self.suspect.notify_one();
    }
}

async fn watch_table(
    store: Store,
    clock: Clock,
    opened: watch::Sender<bool>,
    failing: watch::Sender<Option<Instant>>,
    suspect: Arc<Notify>,
) {
    let (mut suspected, mut failed) = (false, false);
    let mut told = ToldHealth::default();
    loop {
        let table = look(&store, suspected || failed).await;
        failed = table.is_err();
        if failed {
            failing.send_replace(Some(clock.instant()));
        }
        let healthy = matches!(table, Ok(PoolStatus::Open)) && clock.is_trusted();
        metrics::gauge!("broker_clock_skew_seconds").set(clock.correction_s());
        let changed = opened.send_replace(healthy) != healthy;
        if let Some(what) = told.next(changed, healthy, clock.instant()) {
            let clock_trusted = clock.is_trusted();
            match table {
                Ok(standing) => tracing::warn!(healthy, %standing, clock_trusted, "{}", what.words()),
                Err(error) => {
                    let problem: &dyn std::error::Error = &error;
                    tracing::warn!(healthy, problem, clock_trusted, "{}", what.words());
                }
            }
        }
        // However many suspect it, it is looked at as often as a table that is away.
        let least = if suspected || !healthy { WHEN_AWAY } else { Duration::ZERO };
        tokio::time::sleep(least).await;
        suspected = healthy
            && tokio::select! {
                () = suspect.notified() => true,
                () = tokio::time::sleep(WHEN_HEALTHY.saturating_sub(least)) => false,
            };
    }
}

/// What the log was told of the health, and when.
#[derive(Debug, Default)]
struct ToldHealth {
    /// When it was last told that nothing is received.
    unhealthy_at: Option<Instant>,
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HealthLine {
    /// The health is another one than before.
    Changed,
    /// It is still bad, or was bad from the start.
    NotHealthy,
}

impl HealthLine {
    const fn words(self) -> &'static str {
        match self {
            Self::Changed => "health changed",
            Self::NotHealthy => "no messages are received",
        }
    }
}

impl ToldHealth {
    /// The line that is due now, if any.
    fn next(&mut self, changed: bool, healthy: bool, now: Instant) -> Option<HealthLine> {
        let told_lately = self.unhealthy_at.is_some_and(|at| now.saturating_duration_since(at) < TOLD_EVERY);
        let line = match (changed, healthy) {
            (true, _) => HealthLine::Changed,
            (false, false) if !told_lately => HealthLine::NotHealthy,
            (false, _) => return None,
        };
        self.unhealthy_at = (!healthy).then_some(now);
        Some(line)
    }
}

/// How the pool stands; if `thorough`, only where the table takes everything that a request needs.
async fn look(store: &Store, thorough: bool) -> Result<PoolStatus, StoreError> {
    let standing = store.pool.status().await?;
    if thorough {
        store.takes_writes().await?;
    }
    Ok(standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_not_healthy_says_so_in_each_minute() {
        let start = broker_runtime::clock::Clock::system().instant();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = ToldHealth::default();
        assert_eq!(told.next(false, true, at(0)), None);
        assert_eq!(told.next(true, false, at(5)), Some(HealthLine::Changed));
        let minute = |minute: u64, told: &mut ToldHealth| {
            let looks = (0..120).map(|look| at(65 + minute * 60) + WHEN_AWAY * look);
            looks.filter(|now| told.next(false, false, *now).is_some()).count()
        };
        assert_eq!([0, 1, 2].map(|of| minute(of, &mut told)), [2, 2, 2]);
        assert_eq!(told.next(true, true, at(250)), Some(HealthLine::Changed));
        assert_eq!(told.next(false, true, at(300)), None);
        assert_eq!(told.next(true, false, at(301)), Some(HealthLine::Changed));
        assert_eq!(ToldHealth::default().next(false, false, at(0)), Some(HealthLine::NotHealthy));
    }
}
