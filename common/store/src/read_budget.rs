//! Budget of reads: how much one call of an operator may read.

use std::fmt;
use std::time::{Duration, Instant};

/// So many items are looked at however long it takes: on a slow machine, too, one call tells all of a small table.
const ALWAYS: usize = 2_500;

/// The bounds of one call: reads, and the time after which none begins once a number of items was looked at. The first is always
/// made, so each call comes further.
pub struct ReadBudget<'a> {
    reads: usize,
    looked_at: usize,
    until: Instant,
    now: &'a (dyn Fn() -> Instant + Sync),
    is_begun: bool,
}

impl fmt::Debug for ReadBudget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBudget")
            .field("reads", &self.reads)
            .field("looked_at", &self.looked_at)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

impl<'a> ReadBudget<'a> {
    /// At most `reads`, none of which begins later than `within` from now.
    pub fn new(reads: usize, within: Duration, now: &'a (dyn Fn() -> Instant + Sync)) -> Self {
        Self { reads, looked_at: 0, until: now() + within, now, is_begun: false }
    }

    /// Whether so many reads may be made now, which then are.
    pub fn take(&mut self, reads: usize) -> bool {
        let is_in_time = self.looked_at < ALWAYS || (self.now)() < self.until;
        let may = !self.is_begun || (reads <= self.reads && is_in_time);
        if may {
            self.is_begun = true;
            self.reads = self.reads.saturating_sub(reads);
        }
        may
    }

    /// A read looked at so many items.
    pub fn looked_at(&mut self, items: usize) {
        self.looked_at = self.looked_at.saturating_add(items);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use broker_runtime::clock::Clock;

    use super::*;

    #[test]
    fn a_budget_ends_by_reads_or_by_time_and_begins_always() {
        let time = Mutex::new(Clock::system().instant());
        let now = || *time.lock().unwrap();
        let tenth = Duration::from_millis(100);
        let mut few = ReadBudget::new(3, tenth, &now);
        assert_eq!(
            [few.take(1), few.take(1), few.take(2), few.take(1), few.take(1)],
            [true, true, false, true, false]
        );

        let mut short = ReadBudget::new(100, tenth, &now);
        assert!(short.take(1));
        short.looked_at(ALWAYS - 1);
        *time.lock().unwrap() += tenth;
        assert!(short.take(1), "a small table is read whole");
        short.looked_at(1);
        assert!(!short.take(1));

        let mut quick = ReadBudget::new(100, tenth, &now);
        assert!(quick.take(1));
        quick.looked_at(100 * ALWAYS);
        *time.lock().unwrap() += tenth - Duration::from_millis(1);
        assert!(quick.take(1));

        let mut late = ReadBudget::new(1, Duration::ZERO, &now);
        assert_eq!([late.take(16), late.take(1)], [true, false]);
    }
}
