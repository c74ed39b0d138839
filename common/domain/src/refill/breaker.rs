//! Breaker of a flavour: five calls of its hook in a row without an answer stop it; then one call passes per back-off.
//!
//! Calls are counted before they are made, and the count goes back when an answer comes. So a process that is killed with
//! calls under way leaves them counted, and a hook that always fails is called five times and then once per back-off,
//! whatever else happens. An answer is yes or no; 429 is none and no failure.
//!
//! Tickets that are overdue are failures, too, whatever was answered: a hook may make accounts that never arrive, since their
//! names begin otherwise. After five in a row without an arrival the flavour is stopped, and one ticket at a time finds out.

use std::time::Duration;

use super::super::Timestamp;

/// Calls without an answer after which a flavour stops, and the most that are under way at a time.
pub const CALLS: u32 = 5;
/// The pause before the first probe; it doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// The breaker of a flavour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HookBreaker {
    /// Calls in a row without an answer, those under way included.
    pub unanswered: u32,
    /// Probes in a row without an answer.
    pub probes: u32,
    /// When the next probe may be made; `None` as long as calls pass.
    pub probe_at: Option<Timestamp>,
    /// Tickets in a row that were overdue, without an arrival.
    pub overdue: u32,
}

/// What came of some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Yes.
    pub answered: u32,
    /// Later.
    pub later: u32,
    /// No, or nothing usable.
    pub failed: u32,
}

impl HookBreaker {
    /// Whether the flavour is stopped.
    pub const fn is_open(&self) -> bool {
        self.probe_at.is_some() || self.nothing_arrives()
    }

    /// Whether what is asked for does not arrive.
    pub const fn nothing_arrives(&self) -> bool {
        self.overdue >= CALLS
    }

    /// So many tickets were overdue; `arrives` says whether one was taken of late.
    #[must_use]
    pub const fn waited(self, overdue: u32, arrives: bool) -> Self {
        Self { overdue: if arrives { 0 } else { self.overdue.saturating_add(overdue) }, ..self }
    }

    /// How many calls may begin.
    pub fn may_begin(&self, now: Timestamp) -> u32 {
        match self.probe_at {
            None => CALLS.saturating_sub(self.unanswered),
            Some(at) if at.is_to_come(now, LONGEST_PAUSE) => 0,
            Some(_) => 1,
        }
    }

    /// So many calls begin. If they leave none over, the flavour is stopped until answers come.
    #[must_use]
    pub fn begin(self, calls: u32, now: Timestamp) -> Self {
        let unanswered = self.unanswered.saturating_add(calls);
        if calls == 0 || unanswered < CALLS {
            return Self { unanswered, ..self };
        }
        let probes = if self.probe_at.is_some() { self.probes.saturating_add(1) } else { self.probes };
        Self { unanswered, probes, probe_at: Some(now.plus(pause(probes))), ..self }
    }

    /// What came of calls that began in this round.
    #[must_use]
    pub fn end(self, answers: Answers) -> Self {
        if answers.answered > 0 {
            // In which order they ended is not known: the failures may be the last ones.
            let unanswered = answers.failed.min(CALLS - 1);
            return Self { unanswered, probes: 0, probe_at: None, ..self };
        }
        let unanswered = self.unanswered.saturating_sub(answers.later);
        let probe_at = if unanswered < CALLS { None } else { self.probe_at };
        Self { unanswered, probe_at, ..self }
    }
}

/// The pause before a probe.
fn pause(probes: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(probes.min(10))).min(LONGEST_PAUSE)
}
