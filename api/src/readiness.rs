//! Readiness of the API process, from cached state.
//!
//! Invariant: a probe costs nothing and waits for nothing; AWS is checked in the background, every few seconds. On drain the
//! process is not ready at once. Liveness is separate: a process whose AWS is down lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_queue::topology::Depth;
use broker_queue::{QueueError, topology};
use broker_runtime::process::Process;
use broker_store::{FollowedPolicy, Store};
use tokio::time::timeout;

use crate::rpc::backlog::Backlog;
use crate::rpc::reply_queue::Link;

/// The pause between two checks of the dependencies.
const EVERY: Duration = Duration::from_secs(3);
/// The pause while something is missing.
const EVERY_WHILE_NOT_READY: Duration = Duration::from_millis(250);
/// The timeout of a check.
const PATIENCE: Duration = Duration::from_secs(3);

/// The last checks of the dependencies. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ReadinessChecks {
    process: Process,
    link: Link,
    backlog: Backlog,
    policy: FollowedPolicy,
    seen: Arc<Checked>,
}

#[derive(Debug, Default)]
struct Checked {
    requests_queue: AtomicBool,
    table: AtomicBool,
}

impl ReadinessChecks {
    /// `backlog` is estimated anew at each check.
    pub(crate) fn new(process: Process, link: Link, backlog: Backlog, policy: FollowedPolicy) -> Self {
        Self { process, link, backlog, policy, seen: Arc::default() }
    }

    /// Each part with whether it is fine.
    pub(crate) fn parts(&self) -> [(&'static str, bool); 6] {
        let channel = self.link.channel();
        let is_written =
            channel.as_ref().is_none_or(|channel| channel.table_is_written.load(Ordering::Relaxed));
        [
            ("serving", !self.process.lifecycle.soft.is_cancelled()),
            ("reply_queue", channel.is_some()),
            ("requests_queue", self.seen.requests_queue.load(Ordering::Relaxed)),
            ("table", self.seen.table.load(Ordering::Relaxed) && is_written),
            ("policy", self.policy.is_known()),
            ("clock", self.process.clock.is_trusted()),
        ]
    }

    /// Whether every part is fine.
    pub(crate) fn is_ready(&self) -> bool {
        self.parts().iter().all(|(_, fine)| *fine)
    }

    /// Checks the dependencies until the process ends.
    pub(crate) async fn watch(self, store: Store) {
        let mut was_ready = false;
        loop {
            let (table, queue) =
                tokio::join!(timeout(PATIENCE, store.ping()), timeout(PATIENCE, self.check_queue()));
            self.seen.table.store(matches!(table, Ok(Ok(()))), Ordering::Relaxed);
            self.seen.requests_queue.store(matches!(queue, Ok(Ok(Some(_)))), Ordering::Relaxed);
            let visible = if let Ok(Ok(Some(depth))) = &queue { depth.visible } else { 0 };
            let look = self.backlog.look(visible, &store, self.process.clock.now());
            if let Ok(Err(error)) = timeout(PATIENCE, look).await {
                tracing::debug!("the backlog is not known: {error}");
            }
            let is_ready = self.is_ready();
            if is_ready != was_ready {
                let parts = self.parts();
                tracing::info!(ready = is_ready, ?parts, ?table, "readiness changed");
                was_ready = is_ready;
            }
            let pause = if is_ready { EVERY } else { EVERY_WHILE_NOT_READY };
            let hard = &self.process.lifecycle.hard;
            if hard.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// The depth of the requests queue, if it is resolved.
    async fn check_queue(&self) -> Result<Option<Depth>, QueueError> {
        let Some(channel) = self.link.channel() else { return Ok(None) };
        let queue = channel.requests.queue();
        let depth = topology::depth(&self.process.aws, queue, queue.label().to_string()).await?;
        if depth.visible + depth.in_flight + depth.delayed == 0 {
            self.link.saw_empty(self.process.clock.now());
        }
        Ok(Some(depth))
    }
}
