//! Candidates held by claims of this process, across all buffers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::SandboxId;
use broker_runtime::clock::Clock;
use broker_store::Candidate;
use tokio::sync::Notify;

/// How long the index may still list a version that is gone. It lags by less than a second when healthy.
const INDEX_LAG: Duration = Duration::from_secs(10);
/// How often older entries are removed.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// The state of a listed candidate in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateState {
    /// No claim holds it.
    Free,
    /// A claim of this process holds it.
    Busy,
    /// This version is known to be gone; the index lags.
    Gone,
}

/// Candidates that claims of this process hold, and versions that are gone.
#[derive(Debug)]
pub(super) struct HeldCandidates {
    clock: Clock,
    entries: Mutex<Entries>,
    released: Notify,
}

#[derive(Debug)]
struct Entries {
    busy: HashSet<SandboxId>,
    gone: HashMap<SandboxId, (u64, Instant)>,
    forgotten_at: Instant,
}

impl HeldCandidates {
    pub(super) fn new(clock: Clock) -> Self {
        let entries = Entries { busy: HashSet::new(), gone: HashMap::new(), forgotten_at: clock.instant() };
        Self { clock, entries: Mutex::new(entries), released: Notify::new() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        change(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state of a listed candidate.
    pub(super) fn state(&self, candidate: &Candidate) -> CandidateState {
        let now = self.clock.instant();
        self.with(|entries| entries.state(candidate, now))
    }

    /// Takes a candidate if it is free; returns whether it was.
    pub(super) fn take(&self, candidate: &Candidate) -> bool {
        let now = self.clock.instant();
        self.with(|entries| match entries.state(candidate, now) {
            CandidateState::Free => entries.busy.insert(candidate.sandbox_id.clone()),
            CandidateState::Busy | CandidateState::Gone => false,
        })
    }

    /// Marks this version of the candidate as gone.
    pub(super) fn gone(&self, candidate: &Candidate) {
        let now = self.clock.instant();
        self.with(|entries| {
            entries.busy.remove(&candidate.sandbox_id);
            entries.gone.insert(candidate.sandbox_id.clone(), (candidate.version, now));
            if now.duration_since(entries.forgotten_at) >= FORGET_EVERY {
                entries.forgotten_at = now;
                entries.gone.retain(|_, (_, at)| now.duration_since(*at) < INDEX_LAG);
            }
        });
        self.released.notify_waiters();
    }

    /// Passes over this version of a candidate that cannot be read, as if it were gone: what else is listed is tried.
    pub(super) fn pass_over(&self, candidate: &Candidate) {
        let now = self.clock.instant();
        self.with(|entries| entries.gone.insert(candidate.sandbox_id.clone(), (candidate.version, now)));
        self.released.notify_waiters();
    }

    /// Frees a candidate; it may be listed again.
    pub(super) fn free(&self, candidate: &Candidate) {
        self.with(|entries| entries.busy.remove(&candidate.sandbox_id));
        self.released.notify_waiters();
    }

    /// Resolves when any candidate was released after this call.
    pub(super) fn released(&self) -> impl Future<Output = ()> {
        self.released.notified()
    }
}

impl Entries {
    fn state(&self, candidate: &Candidate, now: Instant) -> CandidateState {
        if self.busy.contains(&candidate.sandbox_id) {
            return CandidateState::Busy;
        }
        let gone = self.gone.get(&candidate.sandbox_id);
        if gone
            .is_some_and(|(version, at)| candidate.version <= *version && now.duration_since(*at) < INDEX_LAG)
        {
            CandidateState::Gone
        } else {
            CandidateState::Free
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;

    use super::*;
    use crate::samples::{external_id, name, sandbox_id};

    #[test]
    fn a_version_that_is_gone_is_passed_over_as_long_wherever_the_clock_jumps() {
        let clock = Clock::manual(Timestamp::from_secs(1_000_000));
        let held = HeldCandidates::new(clock.clone());
        let candidate = Candidate {
            sandbox_id: sandbox_id(1),
            name: name(1),
            external_id: external_id(1),
            attributes: None,
            version: 1,
        };
        held.gone(&candidate);
        for jump in [1_000_060, 999_940] {
            clock.set(Timestamp::from_secs(jump));
            assert_eq!(held.state(&candidate), CandidateState::Gone, "at {jump}");
        }
    }
}
