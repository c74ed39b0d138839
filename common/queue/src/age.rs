//! Age of the oldest message that was received recently.
//!
//! SQS reports it only to CloudWatch, and receiving a message to look at it would count as a receive. So each consumer notes
//! it, and its heartbeat stores it (see [`heartbeat`](broker_store::heartbeat)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The age of the oldest message received since it was last [taken](OldestAge::take), and how many were. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct OldestAge(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    oldest_ms: AtomicU64,
    count: AtomicU64,
}

impl OldestAge {
    /// Notes a message of this age.
    pub(super) fn note(&self, age: Duration) {
        // 0 means none.
        let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.oldest_ms.fetch_max(ms, Ordering::Relaxed);
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The age of the oldest since the last call; `None` if nothing was received.
    pub fn take(&self) -> Option<Duration> {
        let ms = self.0.oldest_ms.swap(0, Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// How many were received since the last call.
    pub fn take_count(&self) -> u64 {
        self.0.count.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_told_once_and_nothing_when_nothing_came() {
        let oldest = OldestAge::default();
        assert_eq!(oldest.take(), None);
        for ms in [20, 700, 0, 3] {
            oldest.clone().note(Duration::from_millis(ms));
        }
        assert_eq!(oldest.take(), Some(Duration::from_millis(700)));
        assert_eq!((oldest.take_count(), oldest.take_count()), (4, 0));
        oldest.note(Duration::ZERO);
        assert_eq!(oldest.take(), Some(Duration::from_millis(1)), "new, and there was one");
        assert_eq!(oldest.take(), None);
    }
}
