//! Number of concurrent polls of a receiver, and its backoff after failed ones. Pure.
//!
//! One poll while few messages come; one more when all polls came back full twice in a row, up to the bound. What comes while
//! no poll waits is late by the rest of a call: while polls return several, there is one more, until one ends every
//! [`OFTEN`], or twice as often where every call crosses a network; more would only share the same messages among more calls. One less when a poll returns one or none after a
//! quiet time, or fewer than half while polls end often enough (SQS often returns fewer than ten from a deep queue). After a
//! poll that returned several, but was not full, the next one waits a moment, so that messages close together are fetched
//! together: SQS answers a waiting poll at the first message. Failures back off exponentially, with one poll at a time.

use std::time::Duration;

use broker_runtime::aws::Distance;
use broker_runtime::backoff::Backoff;

/// The pauses after failed polls.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// Polls that end so often are enough: a message waits for half of it, on average. Longer than a poll on one machine takes.
const OFTEN: Duration = Duration::from_millis(5);
/// A poll that waited for so long found a quiet queue.
const QUIET: Duration = Duration::from_millis(50);
/// A queue that has never answered counts as gone after this many denials: SQS takes a second or more to know a new one.
const DENIALS: u32 = 5;

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PollEnd {
    /// As many messages as were asked for, and there is room for another full batch.
    Full,
    /// Some, or no room for more.
    Some,
    /// Less than half of what was asked for.
    Few,
    /// One or none.
    One,
    /// The queue does not exist.
    Missing,
    /// Any other failure.
    Failed,
}

/// The next step after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextPoll {
    /// Poll at once.
    Poll,
    /// Poll a minimum interval after the last poll began.
    PollSpaced,
    /// Poll after about this time.
    PollAfter(Duration),
    /// The queue does not exist.
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct PollConcurrency {
    polls: usize,
    max_polls: usize,
    /// Full polls in a row.
    full: usize,
    failures: u32,
    has_answered: bool,
    distance: Distance,
}

impl PollConcurrency {
    pub(super) fn new(max_polls: usize) -> Self {
        Self {
            polls: 1,
            max_polls: max_polls.max(1),
            full: 0,
            failures: 0,
            has_answered: false,
            distance: Distance::default(),
        }
    }

    /// The wanted number of concurrent polls.
    pub(super) const fn polls(&self) -> usize {
        self.polls
    }

    /// Failed polls in a row.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// The next step after a poll that took so long.
    pub(super) fn after(&mut self, end: PollEnd, took: Duration) -> NextPoll {
        let often = if self.distance.is_far() { OFTEN / 2 } else { OFTEN };
        let is_often = took <= often * u32::try_from(self.polls).unwrap_or(u32::MAX);
        self.distance.learn(took);
        match end {
            PollEnd::Full => {
                self.answered();
                self.full += 1;
                if self.full >= 2 * self.polls {
                    self.full = 0;
                    self.one_more();
                }
                NextPoll::Poll
            }
            PollEnd::Some | PollEnd::Few => {
                self.answered();
                self.full = 0;
                if !is_often {
                    self.one_more();
                } else if end == PollEnd::Few {
                    self.one_less();
                }
                NextPoll::PollSpaced
            }
            PollEnd::One => {
                self.answered();
                self.full = 0;
                if is_often || took > QUIET {
                    self.one_less();
                }
                NextPoll::Poll
            }
            PollEnd::Missing if self.has_answered || self.failures + 1 >= DENIALS => NextPoll::Gone,
            PollEnd::Missing | PollEnd::Failed => {
                self.polls = 1;
                self.full = 0;
                self.failures = self.failures.saturating_add(1);
                NextPoll::PollAfter(BACKOFF.pause(self.failures - 1))
            }
        }
    }

    fn one_more(&mut self) {
        self.polls = (self.polls + 1).min(self.max_polls);
    }

    fn one_less(&mut self) {
        self.polls = (self.polls - 1).max(1);
    }

    const fn answered(&mut self) {
        self.failures = 0;
        self.has_answered = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_grow_while_batches_are_full_and_go_away_when_they_are_not() {
        let mut pace = PollConcurrency::new(3);
        let after = |pace: &mut PollConcurrency, end| {
            pace.after(end, Duration::ZERO);
            pace.polls()
        };
        let grown: Vec<_> = (0..8).map(|_| after(&mut pace, PollEnd::Full)).collect();
        let shrunk = [PollEnd::Few, PollEnd::One, PollEnd::Few].map(|end| after(&mut pace, end));
        assert_eq!((grown, shrunk), (vec![1, 2, 2, 2, 2, 3, 3, 3], [2, 1, 1]));
    }

    #[test]
    fn polls_grow_while_several_messages_come_and_calls_take_their_time() {
        let mut pace = PollConcurrency::new(4);
        let call = 2 * OFTEN + Duration::from_millis(1);
        let ends = [
            (PollEnd::Few, call),
            (PollEnd::Some, call),
            (PollEnd::Some, call),
            (PollEnd::One, call),
            (PollEnd::Few, call),
            (PollEnd::One, call),
            (PollEnd::One, QUIET + call),
        ];
        let polls = ends.map(|(end, took)| {
            pace.after(end, took);
            pace.polls()
        });
        assert_eq!(polls, [2, 3, 3, 2, 3, 2, 1]);
    }

    #[test]
    fn where_every_call_crosses_a_network_there_are_twice_as_many_polls() {
        let polls_after = |calls: usize| {
            let mut pace = PollConcurrency::new(9);
            for _ in 0..calls {
                pace.after(PollEnd::Some, 3 * OFTEN);
            }
            pace.polls()
        };
        assert_eq!([polls_after(10), polls_after(60)], [3, 6]);
    }

    #[test]
    fn several_that_are_not_a_full_batch_are_followed_at_a_distance() {
        let mut pace = PollConcurrency::new(3);
        let next = [PollEnd::Full, PollEnd::Some, PollEnd::Few, PollEnd::One]
            .map(|end| pace.after(end, Duration::ZERO));
        assert_eq!(next, [NextPoll::Poll, NextPoll::PollSpaced, NextPoll::PollSpaced, NextPoll::Poll]);
    }

    #[test]
    fn failures_back_off_to_five_seconds_with_one_poll_and_an_answer_forgets_them() {
        let mut pace = PollConcurrency::new(8);
        pace.after(PollEnd::Full, Duration::ZERO);
        let waits: Vec<_> = (0..7).map(|_| pace.after(PollEnd::Failed, Duration::ZERO)).collect();
        let wait = |ms| NextPoll::PollAfter(Duration::from_millis(ms));
        assert_eq!(
            waits,
            [wait(250), wait(500), wait(1_000), wait(2_000), wait(4_000), wait(5_000), wait(5_000)]
        );
        assert_eq!(pace.polls(), 1);
        assert_eq!(pace.after(PollEnd::Few, Duration::ZERO), NextPoll::PollSpaced);
        assert_eq!(pace.after(PollEnd::Failed, Duration::ZERO), wait(250));
    }

    #[test]
    fn a_queue_that_answered_is_gone_at_its_first_denial() {
        let mut pace = PollConcurrency::new(1);
        pace.after(PollEnd::Few, Duration::ZERO);
        assert_eq!(pace.after(PollEnd::Missing, Duration::ZERO), NextPoll::Gone);
    }

    #[test]
    fn a_queue_made_just_now_is_given_time_to_be_known() {
        let mut pace = PollConcurrency::new(1);
        let denials: Vec<_> = (0..5).map(|_| pace.after(PollEnd::Missing, Duration::ZERO)).collect();
        assert!(denials[..4].iter().all(|next| matches!(next, NextPoll::PollAfter(_))), "{denials:?}");
        assert_eq!(denials[4], NextPoll::Gone);
    }
}
