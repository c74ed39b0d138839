//! Habit: an estimate of whether a write without a read before it will succeed, from the results of the last ones.
//!
//! A write that nearly always succeeds saves a read. One that often fails costs more than the read: it is charged like one that
//! succeeds, and it cancels the other groups of its call (`broker_store`, group commit), which are sent again. So a failure counts
//! as much as [`Habit::LOSS`] successes, and from one failure in nine on, the item is read first. Reads update the estimate, too,
//! so writes without a read are tried again when they would succeed.

use std::sync::atomic::{AtomicU8, Ordering};

/// What the last writes tell.
#[derive(Debug)]
pub(super) struct Habit(AtomicU8);

impl Habit {
    const SURE: u8 = 64;
    const LIKELY: u8 = 32;
    const LOSS: u8 = 8;

    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(Self::SURE))
    }

    pub(super) fn is_likely(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::LIKELY
    }

    /// Learns whether the write would have fitted.
    pub(super) fn learn(&self, fits: bool) {
        let learned = |level: u8| match fits {
            true => Some(Self::SURE.min(level + 1)),
            false => Some(level.saturating_sub(Self::LOSS)),
        };
        // Always written: the closure never refuses.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, learned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(fits: impl IntoIterator<Item = bool>) -> bool {
        let habit = Habit::new();
        fits.into_iter().for_each(|fits| habit.learn(fits));
        habit.is_likely()
    }

    #[test]
    fn an_exception_among_many_changes_nothing_and_a_habit_does() {
        assert!(after([]), "to begin with");
        assert!(after([false; 4]), "after a few exceptions");
        assert!(!after([false; 5]), "after some in a row");
        assert!(after((0..1_000).map(|n| n % 20 != 0)), "one in twenty");
        assert!(!after((0..1_000).map(|n| n % 5 != 0)), "one in five");
        assert!(after([false; 50].into_iter().chain([true; 32])), "once it is so again");
    }
}
