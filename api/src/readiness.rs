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

use crate::rpc::backlog::RequestBacklog;
use crate::rpc::reply_queue::Link;

/// The pause between two checks of the dependencies.
const EVERY: Duration = Duration::from_secs(3);
/// The pause while something is missing.
const EVERY_WHILE_NOT_READY: Duration = Duration::from_millis(250);
/// A process that sends nothing looks at an empty requests queue at one check in so many: each look is a call of SQS.
const IDLE_LOOKS: u32 = 10;
/// The timeout of a check.
const PATIENCE: Duration = Duration::from_secs(3);

/// The last checks of the dependencies. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ReadinessChecks {
    process: Process,
    link: Link,
    backlog: RequestBacklog,
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
    pub(crate) fn new(process: Process, link: Link, backlog: RequestBacklog, policy: FollowedPolicy) -> Self {
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
        let (mut was_ready, mut looks) = (false, QueueLooks::default());
        loop {
            let asks = looks.are_due(self.backlog.was_sent_to()) || !was_ready;
            let queue = async {
                if asks {
                    self.look_at_queue(&store, &mut looks).await
                }
            };
            let (table, ()) = tokio::join!(timeout(PATIENCE, store.ping()), queue);
            self.seen.table.store(matches!(table, Ok(Ok(()))), Ordering::Relaxed);
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

    /// Asks for the requests queue's depth, and estimates the backlog anew.
    async fn look_at_queue(&self, store: &Store, looks: &mut QueueLooks) {
        let queue = timeout(PATIENCE, self.check_queue()).await;
        let depth = if let Ok(Ok(depth)) = queue { depth } else { None };
        self.seen.requests_queue.store(depth.is_some(), Ordering::Relaxed);
        looks.saw(depth.as_ref().is_some_and(is_without_messages));
        let visible = depth.map_or(0, |depth| depth.visible);
        let look = self.backlog.look(visible, store, self.process.clock.now());
        if let Ok(Err(error)) = timeout(PATIENCE, look).await {
            tracing::debug!("the backlog is not known: {error}");
        }
    }

    /// The depth of the requests queue, if it is resolved.
    async fn check_queue(&self) -> Result<Option<Depth>, QueueError> {
        let Some(channel) = self.link.channel() else { return Ok(None) };
        let queue = channel.requests.queue();
        let depth = topology::depth(&self.process.aws, queue, queue.label().to_string()).await?;
        if is_without_messages(&depth) {
            self.link.saw_empty(self.process.clock.now());
        }
        Ok(Some(depth))
    }
}

/// When the requests queue is looked at: seldom while it is empty and nothing is sent to it.
#[derive(Debug, Default)]
struct QueueLooks {
    was_empty: bool,
    left_out: u32,
}

impl QueueLooks {
    /// Whether a look is due, where something `was_sent` since the last check.
    fn are_due(&mut self, was_sent: bool) -> bool {
        let due = was_sent || !self.was_empty || self.left_out + 1 >= IDLE_LOOKS;
        self.left_out = if due { 0 } else { self.left_out + 1 };
        due
    }

    fn saw(&mut self, empty: bool) {
        self.was_empty = empty;
    }
}

const fn is_without_messages(depth: &Depth) -> bool {
    depth.visible + depth.in_flight + depth.delayed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_process_asks_twice_a_minute_and_a_busy_one_at_each_check() {
        let checks_a_minute = 60 / EVERY.as_secs();
        let mut looks = QueueLooks::default();
        assert!(looks.are_due(false), "the first");
        looks.saw(true);
        assert_eq!((0..checks_a_minute).filter(|_| looks.are_due(false)).count(), 2);
        assert!(looks.are_due(true), "something was sent");
        looks.saw(false);
        assert!((0..checks_a_minute).all(|_| looks.are_due(false)), "a backlog is followed");
    }
}
