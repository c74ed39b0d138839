//! Lifecycle of a process: a soft end, then a hard one.
//!
//! The soft token means "take no more work, finish what you have"; the hard one "stop now". The hard one follows the soft
//! one after the drain time, or at the second signal. Each part of a process watches the tokens itself and runs its tasks on
//! the tracker.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tokens and the tracker of one process; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Take no more work.
    pub soft: CancellationToken,
    /// Stop now. A child of nothing: it is cancelled on its own.
    pub hard: CancellationToken,
    /// Tasks that must end before the process does.
    pub tracker: TaskTracker,
}

impl Lifecycle {
    /// A lifecycle without signals.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the soft token at the first SIGTERM or SIGINT, the hard one at the second.
    pub fn end_on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (soft, hard) = (self.soft.clone(), self.hard.clone());
        tokio::spawn(async move {
            for (end, token) in [("soft", soft), ("hard", hard)] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!(end, "signal received");
                token.cancel();
            }
        });
        Ok(())
    }

    /// Waits for the soft token, then until every tracked task has ended or `drain` has passed; then cancels the hard token.
    /// Returns whether every task ended in time.
    pub async fn drained(&self, drain: Duration) -> bool {
        self.soft.cancelled().await;
        self.tracker.close();
        let in_time = tokio::select! {
            () = self.tracker.wait() => true,
            () = tokio::time::sleep(drain) => false,
            () = self.hard.cancelled() => false,
        };
        self.hard.cancel();
        in_time
    }
}
