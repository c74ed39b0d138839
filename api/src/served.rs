//! Counts of the allocate calls that this process answered since it last added them to the history.
//!
//! Invariant: each call is added once; counts that could not be written are added to a later minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_runtime::clock::Clock;
use broker_store::Store;
use broker_store::history::{CLASSES, STEP, Served};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The counts. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServedCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    created: AtomicU64,
    existing: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    latency: [AtomicU64; CLASSES],
}

impl ServedCounts {
    /// One more call that was answered with `outcome`; `broke` if that is no mistake of the client. Without `latency` it
    /// might wait in a line.
    pub(crate) fn count(&self, outcome: &str, broke: bool, latency: Option<Duration>) {
        let Counts { created, existing, refused, failed, latency: classes } = &*self.0;
        let counter = match outcome {
            "created" => created,
            "existing" => existing,
            "no_sandboxes" | "no_prefix_match" => refused,
            _ if broke => failed,
            // A call that is not waited for, or that should not have been made.
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(latency) = latency
            && matches!(outcome, "created" | "existing")
        {
            classes[Served::class(latency)].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Served {
        let Counts { created, existing, refused, failed, latency } = &*self.0;
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Served {
            created: take(created),
            existing: take(existing),
            refused: take(refused),
            failed: take(failed),
            latency: std::array::from_fn(|class| take(&latency[class])),
        }
    }

    fn put_back(&self, served: &Served) {
        let Counts { created, existing, refused, failed, latency } = &*self.0;
        let put = |counter: &AtomicU64, count| _ = counter.fetch_add(count, Ordering::Relaxed);
        put(created, served.created);
        put(existing, served.existing);
        put(refused, served.refused);
        put(failed, served.failed);
        latency.iter().zip(served.latency).for_each(|(counter, count)| put(counter, count));
    }

    /// Adds the counts to each minute as it ends, and to the last one at `stop`.
    pub(crate) async fn remember(self, store: Store, clock: Clock, me: Uuid, stop: CancellationToken) {
        loop {
            let now = clock.now();
            let rest = STEP - Duration::from_millis(now.as_ms() % 60_000);
            let stopped = stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none();
            let served = self.take();
            if served.calls() > 0
                && let Err(error) = store.history.serve(&served, me, now).await
            {
                tracing::debug!("counts of answers not written, added to the next minute: {error}");
                self.put_back(&served);
            }
            if stopped {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_taken_once_and_can_be_put_back() {
        let counts = ServedCounts::default();
        let calls = [
            ("created", false, 7),
            ("existing", false, 90),
            ("no_sandboxes", false, 5),
            ("unavailable", true, 5),
            ("queued", false, 1),
            ("unauthorized", false, 1),
        ];
        for (outcome, broke, ms) in calls {
            counts.count(outcome, broke, Some(Duration::from_millis(ms)));
        }
        counts.count("created", false, None);
        let served = counts.take();
        assert_eq!((served.created, served.existing, served.refused, served.failed), (2, 1, 1, 1));
        assert_eq!(served.latency.iter().sum::<u64>(), 2);
        assert_eq!(counts.take(), Served::default());
        counts.put_back(&served);
        assert_eq!(counts.take(), served);
    }
}
