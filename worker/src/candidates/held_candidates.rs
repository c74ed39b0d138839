//! Candidates held by claims of this process, across all buffers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker_domain::{SandboxId, Timestamp};
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
    gone: HashMap<SandboxId, (u64, Timestamp)>,
    forgotten_at: Timestamp,
}

impl HeldCandidates {
    pub(super) fn new(clock: Clock) -> Self {
        let entries = Entries { busy: HashSet::new(), gone: HashMap::new(), forgotten_at: clock.now() };
        Self { clock, entries: Mutex::new(entries), released: Notify::new() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        change(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state of a listed candidate.
    pub(super) fn state(&self, candidate: &Candidate) -> CandidateState {
        let now = self.clock.now();
        self.with(|entries| entries.state(candidate, now))
    }

    /// Takes a candidate if it is free; returns whether it was.
    pub(super) fn take(&self, candidate: &Candidate) -> bool {
        let now = self.clock.now();
        self.with(|entries| match entries.state(candidate, now) {
            CandidateState::Free => entries.busy.insert(candidate.sandbox_id.clone()),
            CandidateState::Busy | CandidateState::Gone => false,
        })
    }

    /// Marks this version of the candidate as gone.
    pub(super) fn gone(&self, candidate: &Candidate) {
        let now = self.clock.now();
        self.with(|entries| {
            entries.busy.remove(&candidate.sandbox_id);
            entries.gone.insert(candidate.sandbox_id.clone(), (candidate.version, now));
            if now.since(entries.forgotten_at) >= FORGET_EVERY {
                entries.forgotten_at = now;
                entries.gone.retain(|_, (_, at)| now.since(*at) < INDEX_LAG);
            }
        });
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
    fn state(&self, candidate: &Candidate, now: Timestamp) -> CandidateState {
        if self.busy.contains(&candidate.sandbox_id) {
            return CandidateState::Busy;
        }
        let gone = self.gone.get(&candidate.sandbox_id);
        if gone.is_some_and(|(version, at)| candidate.version <= *version && now.since(*at) < INDEX_LAG) {
            CandidateState::Gone
        } else {
            CandidateState::Free
        }
    }
}
