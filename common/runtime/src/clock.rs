//! The clock of a process, corrected by the `Date` header of AWS responses.
//!
//! Deadlines cross machines, so every process reads one [`Clock`], which follows the `Date` header of AWS responses (whole
//! seconds; RFC 9110, 6.6.1). Invariant: a correction needs three responses in a row that agree on it, so one odd response
//! moves nothing; until then a process that is more than two seconds off is not [`trusted`](Clock::is_trusted) and must not
//! receive. A corrected clock jumps; it does not slew.
//!
//! This module alone reads the system's clocks.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_smithy_types::date_time::{DateTime, Format};
use tokio::sync::Notify;

use broker_domain::{MAX_SKEW_MS, Timestamp};

/// The number of responses in a row that must agree before the clock follows them.
const AGREEING_ANSWERS: u32 = 3;

/// A date in a header (RFC 9110, 5.6.7).
pub fn http_date(text: &str) -> Option<Timestamp> {
    let date = DateTime::from_str(text, Format::HttpDate).ok()?;
    u64::try_from(date.secs()).ok().map(Timestamp::from_secs)
}

/// The source of the uncorrected time.
#[derive(Debug)]
enum TimeSource {
    System,
    /// Set by hand, in milliseconds since the epoch; waiting tasks are notified.
    Manual {
        ms: AtomicU64,
        moved: Notify,
    },
}

/// A clock; clones share their correction.
#[derive(Clone, Debug)]
pub struct Clock(Arc<SharedClock>);

#[derive(Debug)]
struct SharedClock {
    source: TimeSource,
    /// Added to the source.
    correction_ms: AtomicI64,
    /// The difference that the last response found after correction, in milliseconds; 0 within the header's precision.
    residual_ms: AtomicI64,
    /// The number of responses compared.
    compared: AtomicU32,
    streak: Mutex<Streak>,
}

/// Consecutive responses that disagree with the clock and agree with each other.
#[derive(Debug, Default)]
struct Streak {
    length: u32,
    residual_ms: i64,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(TimeSource::System)
    }

    /// A clock that stays at `now` until it is [set](Self::set).
    pub fn manual(now: Timestamp) -> Self {
        Self::new(TimeSource::Manual { ms: AtomicU64::new(now.as_ms()), moved: Notify::new() })
    }

    fn new(source: TimeSource) -> Self {
        Self(Arc::new(SharedClock {
            source,
            correction_ms: AtomicI64::new(0),
            residual_ms: AtomicI64::new(0),
            compared: AtomicU32::new(0),
            streak: Mutex::default(),
        }))
    }

    /// Moves a manual clock; the system's clock cannot be moved.
    pub fn set(&self, now: Timestamp) {
        match &self.0.source {
            TimeSource::Manual { ms, moved } => {
                ms.store(now.as_ms(), Ordering::Release);
                moved.notify_waiters();
            }
            TimeSource::System => {}
        }
    }

    /// The corrected time.
    pub fn now(&self) -> Timestamp {
        self.corrected(self.uncorrected())
    }

    /// The uncorrected time: the argument of [`observe`](Self::observe), because a correction may happen between its two
    /// times.
    pub fn uncorrected(&self) -> Timestamp {
        Timestamp::from_ms(match &self.0.source {
            TimeSource::System => system_ms(),
            TimeSource::Manual { ms, .. } => ms.load(Ordering::Acquire),
        })
    }

    fn corrected(&self, uncorrected: Timestamp) -> Timestamp {
        Timestamp::from_ms(uncorrected.as_ms().saturating_add_signed(self.correction_ms()))
    }

    /// Waits until the time is `at` or later.
    pub async fn reaches(&self, at: Timestamp) {
        loop {
            let moved = match &self.0.source {
                TimeSource::System => None,
                // From here on every move notifies it.
                TimeSource::Manual { moved, .. } => Some(moved.notified()),
            };
            let left = at.since(self.now());
            match moved {
                _ if left.is_zero() => return,
                None => tokio::time::sleep(left).await,
                Some(moved) => moved.await,
            }
        }
    }

    /// The monotonic clock, for durations.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Compares the clock with a response dated `date` (whole seconds), requested at `asked` and received at `answered`, both
    /// [uncorrected](Self::uncorrected).
    pub fn observe(&self, date: Timestamp, asked: Timestamp, answered: Timestamp) {
        let mut streak = self.0.streak.lock().unwrap_or_else(PoisonError::into_inner);
        let residual = disagreement_ms(date, self.corrected(asked), self.corrected(answered));
        self.0.residual_ms.store(residual, Ordering::Relaxed);
        self.0.compared.fetch_add(1, Ordering::Relaxed);
        if residual == 0 {
            *streak = Streak::default();
            return;
        }
        let agrees = streak.length > 0 && (streak.residual_ms - residual).abs() <= MAX_SKEW_MS;
        streak.length = if agrees { streak.length + 1 } else { 1 };
        streak.residual_ms = residual;
        if streak.length >= AGREEING_ANSWERS {
            self.0.correction_ms.fetch_add(residual, Ordering::Relaxed);
            self.0.residual_ms.store(0, Ordering::Relaxed);
            *streak = Streak::default();
        }
    }

    /// The correction in milliseconds.
    pub fn correction_ms(&self) -> i64 {
        self.0.correction_ms.load(Ordering::Relaxed)
    }

    /// The correction in seconds, for metrics.
    pub fn correction_s(&self) -> f64 {
        let ms = self.correction_ms();
        let seconds = Duration::from_millis(ms.unsigned_abs()).as_secs_f64();
        if ms < 0 { -seconds } else { seconds }
    }

    /// Whether the clock was compared with AWS and is within [`MAX_SKEW_MS`] of it after correction.
    pub fn is_trusted(&self) -> bool {
        self.0.compared.load(Ordering::Relaxed) > 0
            && self.0.residual_ms.load(Ordering::Relaxed).abs() <= MAX_SKEW_MS
    }
}

/// The smallest shift in milliseconds that puts a response dated `date` (any time in that second) between `asked` and
/// `answered`.
fn disagreement_ms(date: Timestamp, asked: Timestamp, answered: Timestamp) -> i64 {
    let signed = |t: Timestamp| i64::try_from(t.as_ms()).unwrap_or(i64::MAX);
    let earliest = signed(date) - signed(answered);
    let latest = signed(date.plus(Duration::from_secs(1))) - signed(asked);
    if earliest > 0 {
        earliest
    } else if latest < 0 {
        latest
    } else {
        0
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_date_header_is_read_to_the_second() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp::from_secs(784_111_777)));
        assert_eq!(http_date("now"), None);
    }

    #[test]
    fn a_clock_within_the_precision_of_the_header_is_not_corrected() {
        let clock = Clock::manual(at(10_500));
        for _ in 0..10 {
            clock.observe(at(10_000), at(10_490), at(10_500));
        }
        assert_eq!(clock.correction_ms(), 0);
        assert!(clock.is_trusted());
    }

    #[test]
    fn a_clock_a_minute_off_is_untrusted_until_answers_agree_and_then_corrected() {
        let clock = Clock::manual(at(70_000));
        assert!(!clock.is_trusted(), "never compared");
        clock.observe(at(10_000), at(69_990), at(70_000));
        assert!(!clock.is_trusted(), "a minute off");
        clock.observe(at(10_000), at(69_990), at(70_000));
        clock.observe(at(10_000), at(69_990), at(70_000));
        assert!(clock.is_trusted());
        assert!((10_000..=11_010).contains(&clock.now().as_ms()), "{}", clock.now());
    }

    #[test]
    fn answers_to_calls_from_before_a_correction_do_not_correct_twice() {
        let clock = Clock::manual(at(70_000));
        for _ in 0..20 {
            clock.observe(at(10_000), at(69_990), at(70_000));
        }
        assert!((10_000..=11_010).contains(&clock.now().as_ms()), "{}", clock.now());
    }

    #[tokio::test]
    async fn a_time_is_waited_for_until_the_clock_says_it() {
        let clock = Clock::manual(at(1_000));
        clock.reaches(at(1_000)).await;
        let waiting = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.reaches(at(3_000)).await;
                clock.now()
            }
        });
        for ms in [2_000, 2_999, 3_001] {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "at {}", clock.now());
            clock.set(at(ms));
        }
        assert_eq!(waiting.await.unwrap(), at(3_001));
        let (clock, began) = (Clock::system(), Clock::system().now());
        let soon = began.plus(Duration::from_millis(20));
        clock.reaches(soon).await;
        assert!(clock.now() >= soon);
    }

    #[test]
    fn one_odd_answer_moves_nothing() {
        let clock = Clock::manual(at(70_000));
        clock.observe(at(10_000), at(69_990), at(70_000));
        clock.observe(at(69_000), at(69_990), at(70_000));
        clock.observe(at(10_000), at(69_990), at(70_000));
        clock.observe(at(69_000), at(69_990), at(70_000));
        assert_eq!(clock.correction_ms(), 0);
        assert!(clock.is_trusted());
    }
}
