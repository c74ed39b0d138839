//! Health of a worker: its table answers, its pool is open, its clock can be trusted.
//!
//! Invariant: while the gate is closed nothing is received, so an outage of the table spends no receives of messages that
//! cannot be handled, and a paused pool is not touched. Nothing is restarted.

use std::time::Duration;

use broker_runtime::clock::Clock;
use broker_runtime::lifecycle::Lifecycle;
use broker_store::{PoolStatus, Store};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// The interval of checks while the table answers.
const WHEN_HEALTHY: Duration = Duration::from_secs(5);
/// The interval of checks while it does not.
const WHEN_AWAY: Duration = Duration::from_millis(500);

/// The cached health; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    open: watch::Receiver<bool>,
    suspect: Arc<Notify>,
}

impl Health {
    /// Starts the checks, from the pool status `standing`, until the lifecycle's soft end; then it is unhealthy for good.
    pub(crate) fn start(store: Store, clock: Clock, lifecycle: &Lifecycle, standing: &PoolStatus) -> Self {
        if *standing != PoolStatus::Open {
            tracing::warn!(?standing, "no messages are received");
        }
        let (opened, open) = watch::channel(*standing == PoolStatus::Open);
        let suspect = Arc::new(Notify::new());
        let stop = lifecycle.soft.clone();
        let watcher = watch_table(store, clock, opened, Arc::clone(&suspect));
        tokio::spawn(async move { stop.run_until_cancelled_owned(watcher).await });
        Self { open, suspect }
    }

    /// Open while messages should be received.
    pub(crate) fn gate(&self) -> watch::Receiver<bool> {
        self.open.clone()
    }

    /// Whether messages are received: healthy, and not draining.
    pub(crate) fn is_ready(&self) -> bool {
        *self.open.borrow() && self.open.has_changed().is_ok()
    }

    /// A call to the table failed: check at once.
    pub(crate) fn suspect(&self) {
        self.suspect.notify_one();
    }
}

async fn watch_table(store: Store, clock: Clock, opened: watch::Sender<bool>, suspect: Arc<Notify>) {
    loop {
        let table = store.pool_status().await;
        let healthy = matches!(table, Ok(PoolStatus::Open)) && clock.is_trusted();
        metrics::gauge!("broker_clock_skew_seconds").set(clock.correction_s());
        if opened.send_replace(healthy) != healthy {
            let clock_trusted = clock.is_trusted();
            match table {
                Ok(standing) => tracing::warn!(healthy, ?standing, clock_trusted, "health changed"),
                Err(error) => {
                    let problem: &dyn std::error::Error = &error;
                    tracing::warn!(healthy, problem, clock_trusted, "health changed");
                }
            }
        }
        let pause = if healthy { WHEN_HEALTHY } else { WHEN_AWAY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = suspect.notified(), if healthy => {}
        }
    }
}
