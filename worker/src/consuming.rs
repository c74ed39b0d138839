//! Receive loop of every consumer: permit → receive → work, each message in a task of its own; and the backoff between
//! attempts.
//!
//! Invariant: messages received before the soft end are processed, on the lifecycle's tracker. A message's permit is dropped
//! when its work is done: the acknowledgement may wait for others and holds up nothing.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use broker_queue::{Delivery, Ended, Receiver};
use broker_runtime::entropy::Entropy;
use broker_runtime::lifecycle::Lifecycle;
use tokio::sync::OwnedSemaphorePermit;

/// The first backoff after a failed attempt, doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest backoff.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The backoff after the `attempt`th failed attempt (from 0).
pub(crate) fn backoff(attempt: u32, entropy: &Entropy) -> Duration {
    entropy.jitter(FIRST_BACKOFF.saturating_mul(1 << attempt.min(10)).min(LONGEST_BACKOFF))
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Passes the messages of `receiver` to `work` until the lifecycle's soft end. `queue` is the name in the log.
pub(crate) async fn consume<W, Fut>(
    receiver: Receiver,
    queue: &'static str,
    entropy: Entropy,
    lifecycle: Lifecycle,
    work: W,
) where
    W: Fn(Delivery, Option<OwnedSemaphorePermit>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let work = Arc::new(work);
    loop {
        let (work, tracker) = (Arc::clone(&work), lifecycle.tracker.clone());
        let hand_on = move |delivery, permit| {
            tracker.spawn(work(delivery, permit));
        };
        match receiver.clone().run(lifecycle.soft.clone(), hand_on).await {
            Ended::Stopped => return,
            Ended::QueueGone => {
                tracing::error!(queue, "the queue is gone: run `broker init`");
                let pause = entropy.jitter(LONGEST_BACKOFF);
                if lifecycle.soft.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        }
    }
}
