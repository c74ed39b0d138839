//! Age of the oldest message that was received recently.
//!
//! SQS reports it only to CloudWatch, and receiving a message to look at it would count as a receive. So each consumer notes
//! it, and its heartbeat stores it (see [`heartbeat`](broker_store::heartbeat)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The age of the oldest message received since it was last [taken](OldestAge::take). Clones share it.
#[derive(Clone, Debug, Default)]
pub struct OldestAge(Arc<AtomicU64>);

impl OldestAge {
    /// Notes a message of this age.
    pub(super) fn note(&self, age: Duration) {
        // 0 means none.
        let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.fetch_max(ms, Ordering::Relaxed);
    }

    /// The age of the oldest since the last call; `None` if nothing was received.
    pub fn take(&self) -> Option<Duration> {
        let ms = self.0.swap(0, Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
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
        oldest.note(Duration::ZERO);
        assert_eq!(oldest.take(), Some(Duration::from_millis(1)), "new, and there was one");
        assert_eq!(oldest.take(), None);
    }
}
