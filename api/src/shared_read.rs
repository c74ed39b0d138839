//! Reads that callers share.
//!
//! Invariant: one caller reads at a time; those that come meanwhile wait for its result and share it, also if it failed. So
//! callers do not wait one after the other for a table that does not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_runtime::clock::Clock;
use tokio::sync::Mutex;

use crate::response::problem::Problem;

/// How long a failure is told without another try.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// When the last read ended, and what it found, if it succeeded.
type LastRead<T> = Option<(Instant, Option<T>)>;

/// The last read. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SharedRead<T>(Arc<Mutex<LastRead<T>>>);

impl<T> Default for SharedRead<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> SharedRead<T> {
    /// What was found, told for so long from the end of its read: a slow read would be too old for all who waited for it.
    pub(crate) async fn told_for<E: Into<Problem>>(
        &self,
        told_for: Duration,
        clock: &Clock,
        read: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, Problem> {
        let mut last = self.0.lock().await;
        if let Some((ended, found)) = &*last {
            let told_for = if found.is_some() { told_for } else { FAILED_FOR };
            if clock.instant().duration_since(*ended) < told_for {
                let again = || Problem::unavailable("The broker's table does not answer.");
                return found.clone().ok_or_else(again);
            }
        }
        let found = read().await;
        *last = Some((clock.instant(), found.as_ref().ok().cloned()));
        found.map_err(Into::into)
    }

    /// Drops what was found, because it was changed; the next caller reads.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// How many reads a hundred callers cost who come at once, if each ends as `read` says, and how many were told something.
    async fn reads_of_a_hundred(read: Option<u32>) -> (u32, usize) {
        let (shared, clock, reads) = (SharedRead::default(), Clock::system(), Arc::new(AtomicU32::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..100 {
            let (shared, clock, reads) = (shared.clone(), clock.clone(), Arc::clone(&reads));
            callers.spawn(async move {
                let read = async || {
                    reads.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    read.ok_or_else(|| Problem::unavailable("away"))
                };
                shared.told_for(MINUTE, &clock, read).await
            });
        }
        let told = callers.join_all().await.iter().filter(|told| told.is_ok()).count();
        (reads.load(Ordering::Relaxed), told)
    }

    #[tokio::test]
    async fn callers_that_come_at_once_share_one_read_also_if_it_fails() {
        assert_eq!(reads_of_a_hundred(Some(1)).await, (1, 100));
        assert_eq!(reads_of_a_hundred(None).await, (1, 0));
    }

    #[tokio::test]
    async fn what_was_forgotten_or_is_told_no_more_is_read_again() {
        let (shared, clock) = (SharedRead::default(), Clock::system());
        let call = async |told_for, found: u32| {
            shared.told_for(told_for, &clock, async || Ok::<_, Problem>(found)).await.unwrap()
        };
        assert_eq!((call(MINUTE, 1).await, call(MINUTE, 2).await), (1, 1));
        shared.forget().await;
        assert_eq!(call(MINUTE, 3).await, 3);
        assert_eq!(call(Duration::ZERO, 4).await, 4);
    }
}
