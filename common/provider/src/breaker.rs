//! Circuit breaker of the provider, or of one hook: five failures in a row open it for 60 seconds, a refusal of every call opens it at
//! once; then one call passes, which closes or reopens it.
//!
//! Clones share it; each process has its own. It saves calls that cannot succeed, and that depends on the process: a worker
//! that cannot reach the provider must not stop those that can. A shared breaker would be a read of the table before each
//! call, and its answer could be outdated when it is used. The price is small: an outage costs five calls per worker, then
//! one a minute each, and the rate of deletions is shared whatever the breakers say. The breaker keeps the reason of the
//! last failure; the error of a call that does not pass contains it.
//!
//! A breaker that opened tells of the provider only as long as its process calls it: once its last failure is some minutes old,
//! because other processes do the work, it says of itself no more than that the next call finds out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// ARCHITECTURE.md, "Provider".
const FAILURES: u32 = 5;
const OPEN_FOR: Duration = Duration::from_secs(60);
/// How long a failure is news: longer than between two runs of cleanup, each of which calls again while the provider is away.
const NEWS_FOR: Duration = Duration::from_secs(6 * 60);

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// No call passes, or the last that did failed.
    Open,
    /// One trial call is under way, or was not made for long.
    HalfOpen,
}

#[derive(Debug, Default)]
struct SharedBreaker {
    failures: u32,
    /// When a call last failed.
    failed_at: Option<Instant>,
    /// When it opened, if it has not closed since.
    opened_at: Option<Instant>,
    open_until: Option<Instant>,
    probing: bool,
    /// The last failure's reason.
    why: String,
}

/// What a breaker stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// The provider: its state is a metric.
    Provider,
    /// A hook, one of many.
    Hook,
}

/// The breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    inner: Arc<Mutex<SharedBreaker>>,
    before: Before,
}

impl SharedBreaker {
    /// Whether its last failure says something of `now`.
    fn is_news(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < NEWS_FOR)
    }
}

impl Breaker {
    pub(super) fn new() -> Self {
        metrics::gauge!("broker_provider_breaker_state").set(0.0);
        Self { inner: Arc::default(), before: Before::Provider }
    }

    /// The breaker of one hook.
    pub(super) fn of_hook() -> Self {
        Self { inner: Arc::default(), before: Before::Hook }
    }

    /// Lets one call pass, or returns how long to wait, and why.
    pub(super) fn pass(&self, now: Instant) -> Result<Pass, Shut> {
        let mut inner = self.inner();
        if let Some(until) = inner.open_until {
            let left = until.saturating_duration_since(now);
            let shut = |again_after| Err(Shut { again_after, why: inner.why.clone() });
            if !left.is_zero() {
                return shut(left);
            }
            if inner.probing {
                return shut(Duration::from_secs(1));
            }
            inner.probing = true;
        }
        drop(inner);
        self.show(now);
        Ok(Pass { breaker: self.clone(), began: now, reported: false })
    }

    /// How long the breaker stays open; `None` if a call would pass.
    pub fn open_for(&self, now: Instant) -> Option<Duration> {
        let left = self.inner().open_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// How long it has not been closed, and why; `None` while it is, and once it has not heard of a failure for long.
    pub fn failing_for(&self, now: Instant) -> Option<(Duration, String)> {
        let inner = self.inner();
        let opened_at = inner.opened_at.filter(|_| inner.is_news(now))?;
        Some((now.saturating_duration_since(opened_at), inner.why.clone()))
    }

    /// The reason of the last failure.
    pub fn why(&self) -> String {
        self.inner().why.clone()
    }

    /// Its state.
    pub fn state(&self, now: Instant) -> BreakerState {
        let inner = self.inner();
        match inner.open_until {
            None => BreakerState::Closed,
            Some(_) if !inner.probing && inner.is_news(now) => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Opens at once: every call would be refused.
    pub(super) fn open(&self, now: Instant, why: &str) {
        self.count(now, why, FAILURES);
    }

    fn count(&self, now: Instant, why: &str, weight: u32) {
        {
            let mut inner = self.inner();
            inner.failures += weight;
            let opened_at = inner.opened_at.filter(|_| inner.is_news(now));
            inner.failed_at = Some(now);
            why.clone_into(&mut inner.why);
            if inner.probing || inner.failures >= FAILURES {
                inner.open_until = Some(now + OPEN_FOR);
                inner.opened_at = opened_at.or(Some(now));
                inner.probing = false;
                let failing = match self.before {
                    Before::Provider => "the provider",
                    Before::Hook => "a hook",
                };
                tracing::warn!(failures = inner.failures, why, "{failing} fails: not asked for a minute");
            }
        }
        self.show(now);
    }

    fn inner(&self) -> MutexGuard<'_, SharedBreaker> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the metric of its state. Called at each change, and every 15 s by the worker.
    pub fn show(&self, now: Instant) {
        if self.before != Before::Provider {
            return;
        }
        let shown = match self.state(now) {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        metrics::gauge!("broker_provider_breaker_state").set(shown);
    }
}

/// The answer of an open breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    pub(super) again_after: Duration,
    pub(super) why: String,
}

/// One call under way. If it is dropped (its caller was cancelled), it does not count.
#[derive(Debug)]
pub(super) struct Pass {
    breaker: Breaker,
    began: Instant,
    reported: bool,
}

impl Pass {
    pub(super) fn succeeded(mut self) {
        self.reported = true;
        *self.breaker.inner() = SharedBreaker::default();
        self.breaker.show(self.began);
    }

    /// It failed: five of these in a row open the breaker.
    pub(super) fn failed(mut self, now: Instant, why: &str) {
        self.reported = true;
        self.breaker.count(now, why, 1);
    }

    /// It was refused for a reason that holds for every call.
    pub(super) fn refused(mut self, now: Instant, why: &str) {
        self.reported = true;
        self.breaker.open(now, why);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.reported {
            self.breaker.inner().probing = false;
            self.breaker.show(self.began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_runtime::clock::Clock;

    fn fail(breaker: &Breaker, now: Instant, times: u32) {
        (0..times).for_each(|_| breaker.pass(now).unwrap().failed(now, "status 500"));
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_success_between_does_not() {
        let (breaker, now) = (Breaker::new(), Clock::system().instant());
        fail(&breaker, now, 4);
        breaker.pass(now).unwrap().succeeded();
        fail(&breaker, now, 4);
        assert_eq!(breaker.state(now), BreakerState::Closed);
        fail(&breaker, now, 1);
        assert_eq!(breaker.state(now), BreakerState::Open);
        let shut = Shut { again_after: OPEN_FOR, why: "status 500".to_owned() };
        assert_eq!(breaker.pass(now).unwrap_err(), shut);
        assert_eq!(breaker.open_for(now), Some(OPEN_FOR));
    }

    #[test]
    fn after_a_minute_one_call_alone_finds_out() {
        let (breaker, now) = (Breaker::new(), Clock::system().instant());
        fail(&breaker, now, 5);
        let later = now + OPEN_FOR;
        let probe = breaker.pass(later).unwrap();
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert!(breaker.pass(later).is_err(), "one at a time");
        probe.failed(later, "status 500");
        assert!(breaker.pass(later).is_err(), "open again at its first failure");
        let failing = breaker.failing_for(later).expect("not closed");
        assert_eq!(failing, (OPEN_FOR, "status 500".to_owned()), "since it opened first");
        drop(breaker.pass(later + OPEN_FOR).unwrap());
        breaker.pass(later + OPEN_FOR).unwrap().succeeded();
        assert_eq!(breaker.failing_for(later + OPEN_FOR), None);
        assert_eq!(breaker.state(later + OPEN_FOR), BreakerState::Closed);
    }

    #[test]
    fn a_breaker_whose_process_calls_no_more_does_not_say_for_ever_that_the_provider_is_away() {
        let (breaker, now) = (Breaker::new(), Clock::system().instant());
        fail(&breaker, now, 5);
        let soon = now + OPEN_FOR + Duration::from_secs(240);
        assert_eq!(breaker.state(soon), BreakerState::Open, "no call was made since");
        assert!(breaker.failing_for(soon).is_some());
        let late = now + NEWS_FOR;
        assert_eq!((breaker.state(late), breaker.failing_for(late)), (BreakerState::HalfOpen, None));
        // It has not closed: one call finds out. What was in between it does not know.
        breaker.pass(late).unwrap().failed(late, "status 503");
        assert_eq!(breaker.state(late), BreakerState::Open);
        assert_eq!(breaker.failing_for(late), Some((Duration::ZERO, "status 503".to_owned())));
    }

    #[test]
    fn a_refusal_of_everything_opens_it_at_once() {
        let (breaker, now) = (Breaker::new(), Clock::system().instant());
        breaker.pass(now).unwrap().refused(now, "status 401");
        assert_eq!((breaker.state(now), breaker.why().as_str()), (BreakerState::Open, "status 401"));
        assert_eq!(breaker.pass(now).unwrap_err().why, "status 401");
    }
}
