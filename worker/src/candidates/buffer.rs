//! Buffer of candidates of one kind, by name prefix or reservation, refilled page by page.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::Status;
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{Candidate, CandidateFilter, PageKey, Pages, Store, StoreError, retry_on_conflict};
use tokio::sync::{Semaphore, watch};

use super::Candidates;
use super::held_candidates::{CandidateState, HeldCandidates};

/// Candidates asked for in one call.
pub(super) const PAGE: u16 = 100;
/// Shards that a refill tries before it queries all of them.
const SHARDS_IN_TURN: usize = 3;
/// The least time between the starts of two refills of an empty pool: it bounds the cost of an empty pool.
const EMPTY_REFILL_EVERY: Duration = Duration::from_millis(25);
/// The same for a name prefix that nothing has: its look at the whole pool answers all who came meanwhile.
const EMPTY_PREFIX_REFILL_EVERY: Duration = Duration::from_millis(250);
/// How long a reservation that was found used up is not looked at again by claims that may find something elsewhere.
const EMPTY_FOR: Duration = Duration::from_millis(250);
/// The longest wait for candidates that other claims hold, before the next refill.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// How long listed candidates are tried. Their versions identify them however old they are; a bound besides that costs one
/// page a minute.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The candidates of one prefix, or of one reservation.
#[derive(Debug)]
pub(super) struct Buffer {
    store: Store,
    clock: Clock,
    entropy: Entropy,
    held_candidates: Arc<HeldCandidates>,
    of: CandidateFilter,
    /// How many prefixes may be looked for at a time.
    looks: Arc<Semaphore>,
    keeps_attributes: bool,
    state: Mutex<BufferState>,
    /// Locked by the one claim that refills for all.
    refilling: tokio::sync::Mutex<()>,
    /// Changes after each refill.
    refilled: watch::Sender<()>,
}

/// The turn to refill, for all. When dropped, it first lets the next one refill, then wakes all that wait.
struct RefillTurn<'a> {
    _refilling: tokio::sync::MutexGuard<'a, ()>,
    _wake: Wake<'a>,
}

/// Wakes all that wait for a refill when it is dropped.
struct Wake<'a>(&'a watch::Sender<()>);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}

#[derive(Debug)]
struct BufferState {
    ready: VecDeque<Candidate>,
    /// The refill that listed these.
    listed: u64,
    /// When it did.
    listed_at: Instant,
    /// The number of refills begun.
    refills: u64,
    /// The newest refill that failed.
    last_failed: u64,
    /// The newest refill that found nothing.
    last_empty: u64,
    /// When that refill began.
    last_empty_at: Option<Instant>,
    /// The current shard.
    shard: u8,
    /// The shards in this buffer's own order, so that workers neither begin at the same names nor follow each other, and the
    /// position of the next one.
    order: Vec<u8>,
    position: usize,
    /// Where the next page of each shard begins; `None` is its beginning.
    cursors: Vec<Option<PageKey>>,
}

impl BufferState {
    /// Moves to the next shard.
    fn turn(&mut self) {
        self.shard = self.order.get(self.position).copied().unwrap_or_default();
        self.position = (self.position + 1) % self.order.len().max(1);
    }
}

/// The result of a refill.
enum Refilled {
    Found,
    /// Only candidates that other claims of this process hold, or that cannot be read.
    Busy,
    Nothing,
}

impl Buffer {
    pub(super) fn new(all: &Candidates, of: CandidateFilter) -> Self {
        let Candidates { store, clock, entropy, .. } = all;
        let mut order: Vec<u8> = (0..store.shards()).collect();
        entropy.shuffle(&mut order);
        let mut state = BufferState {
            ready: VecDeque::new(),
            listed: 0,
            listed_at: clock.instant(),
            refills: 0,
            last_failed: 0,
            last_empty: 0,
            last_empty_at: None,
            shard: 0,
            order,
            position: 0,
            cursors: vec![None; usize::from(store.shards())],
        };
        state.turn();
        Self {
            store: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            held_candidates: Arc::clone(&all.held_candidates),
            of,
            looks: Arc::clone(&all.prefix_looks),
            keeps_attributes: all.keeps_attributes,
            state: Mutex::new(state),
            refilling: tokio::sync::Mutex::new(()),
            refilled: watch::Sender::new(()),
        }
    }

    /// The state in which its candidates were listed.
    pub(super) const fn status(&self) -> Status {
        self.of.status()
    }

    /// The same as [`Self::next`], but what a look found empty a moment ago is empty.
    pub(super) async fn next_if_any(&self) -> Result<Option<(Candidate, u64)>, StoreError> {
        let now = self.clock.instant();
        let is_empty = self.with(|state| {
            let is_recent = state.last_empty_at.is_some_and(|at| now.duration_since(at) < EMPTY_FOR);
            is_recent && state.last_empty == state.refills && state.ready.is_empty()
        });
        if is_empty { Ok(None) } else { self.next().await }
    }

    fn with<T>(&self, change: impl FnOnce(&mut BufferState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next candidate, and the refill that listed it; `None` if a refill that began after this call found nothing. A failed
    /// refill fails every claim that waited for it, so that an unreachable table does not make them fail one after the other.
    pub(super) async fn next(&self) -> Result<Option<(Candidate, u64)>, StoreError> {
        let arrived = self.with(|state| state.refills);
        let mut refilled = self.refilled.subscribe();
        loop {
            if let Some(answer) = self.ready(arrived) {
                return answer;
            }
            let Ok(turn) = self.refilling.try_lock() else {
                // Woken together, all claims go on together: their next reads share a call.
                let _ = refilled.changed().await;
                continue;
            };
            let _turn = RefillTurn { _refilling: turn, _wake: Wake(&self.refilled) };
            let released = self.held_candidates.released();
            if let Refilled::Busy = self.refill().await? {
                let _ = tokio::time::timeout(BUSY_WAIT, released).await;
            }
        }
    }

    /// The answer that needs no refill by this claim.
    fn ready(&self, arrived: u64) -> Option<Result<Option<(Candidate, u64)>, StoreError>> {
        let now = self.clock.instant();
        self.with(|state| {
            if now.duration_since(state.listed_at) > KEPT_FOR {
                state.ready.clear();
            }
            while let Some(candidate) = state.ready.pop_front() {
                if self.held_candidates.take(&candidate) {
                    return Some(Ok(Some((candidate, state.listed))));
                }
            }
            if state.last_empty > arrived {
                Some(Ok(None))
            } else if state.last_failed > arrived {
                Some(Err(StoreError::Unavailable {
                    operation: "Query",
                    source: "the refill of another claim failed".into(),
                }))
            } else {
                None
            }
        })
    }

    pub(super) fn put_back(&self, candidate: Candidate) {
        self.with(|state| state.ready.push_front(candidate));
    }

    /// Puts in front what was just seen in the table.
    pub(super) fn learn(&self, candidate: Candidate) {
        self.with(|state| {
            if state.ready.is_empty() {
                state.listed_at = self.clock.instant();
            }
            state.ready.push_front(candidate);
        });
    }

    /// A candidate of that refill was lost: another worker uses the same page, so the rest is left to it and the next refill
    /// goes elsewhere.
    pub(super) fn leave(&self, refill: u64) {
        self.with(|state| {
            if state.listed == refill && !state.ready.is_empty() {
                state.ready.clear();
                state.turn();
            }
        });
    }

    /// Refills from the index, for all that wait.
    async fn refill(&self) -> Result<Refilled, StoreError> {
        // Anybody may make a prefix up; a reservation an operator made.
        let by_prefix = self.of.prefix.is_some() && self.of.reservation.is_none();
        let every = if by_prefix { EMPTY_PREFIX_REFILL_EVERY } else { EMPTY_REFILL_EVERY };
        let pause = self
            .with(|state| state.last_empty_at)
            .map_or(Duration::ZERO, |at| every.saturating_sub(self.clock.instant().duration_since(at)));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        // A semaphore that is never closed always gives a permit.
        let _look = if by_prefix { self.looks.acquire().await.ok() } else { None };
        let began = self.clock.instant();
        let number = self.with(|state| {
            state.refills += 1;
            state.refills
        });
        let listed = self.list().await.inspect_err(|_| self.with(|state| state.last_failed = number))?;
        let mut busy = false;
        let mut free = Vec::with_capacity(listed.len());
        for candidate in listed {
            match self.held_candidates.state(&candidate) {
                CandidateState::Free => free.push(candidate),
                CandidateState::Busy => busy = true,
                CandidateState::Gone => {}
            }
        }
        if self.keeps_attributes && !free.is_empty() {
            let found = free.len();
            let read = self.with_attributes(free).await;
            free = read.inspect_err(|_| self.with(|state| state.last_failed = number))?;
            // Behind those that cannot be read, and are passed over from now on, the next refill finds what is there.
            busy |= free.len() < found;
        }
        self.entropy.shuffle(&mut free);
        Ok(self.with(|state| {
            if !free.is_empty() {
                state.ready.extend(free);
                state.listed = number;
                state.listed_at = self.clock.instant();
                Refilled::Found
            } else if busy {
                Refilled::Busy
            } else {
                state.last_empty = number;
                state.last_empty_at = Some(began);
                Refilled::Nothing
            }
        }))
    }

    /// The candidates with the provider's attributes: one call of theirs all, so that no claim needs one. Those that cannot be read
    /// are passed over.
    pub(super) async fn with_attributes(
        &self,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, StoreError> {
        let read = || self.store.sandboxes.with_attributes(candidates.clone());
        let read = retry_on_conflict(&self.entropy, read).await?;
        let kept: HashSet<_> = read.iter().map(|candidate| &candidate.sandbox_id).collect();
        let unreadable = candidates.iter().filter(|candidate| !kept.contains(&candidate.sandbox_id));
        unreadable.for_each(|candidate| self.held_candidates.pass_over(candidate));
        Ok(read)
    }

    /// The next page of the current shard, or of one of the next; if they have none free, a page of all shards.
    async fn list(&self) -> Result<Vec<Candidate>, StoreError> {
        let was_empty = self.with(|state| state.last_empty > 0 && state.last_empty + 1 == state.refills);
        // Few names begin with a prefix, perhaps none: one look at all shards finds them.
        let is_first = self.with(|state| state.refills == 1);
        if !(was_empty || is_first && self.of.prefix.is_some()) {
            for _ in 0..SHARDS_IN_TURN {
                let page = self.continue_shard(self.with(|state| state.shard)).await?;
                if page.iter().any(|candidate| self.held_candidates.state(candidate) == CandidateState::Free)
                {
                    return Ok(page);
                }
                self.with(BufferState::turn);
            }
        }
        self.sweep().await
    }

    /// The next page of a shard, from its beginning if it was at its end.
    async fn continue_shard(&self, shard: u8) -> Result<Vec<Candidate>, StoreError> {
        let cursor = self.with(|state| state.cursors[usize::from(shard)].take());
        let in_the_middle = cursor.is_some();
        let mut page = self.store.sandboxes.candidates(shard, &self.of, cursor, PAGE).await?;
        if page.items.is_empty() && in_the_middle {
            page = self.store.sandboxes.candidates(shard, &self.of, None, PAGE).await?;
        }
        self.with(|state| state.cursors[usize::from(shard)] = page.next);
        Ok(page.items)
    }

    /// Pages of all shards until something is free; the next refill continues in the shard of what was found.
    async fn sweep(&self) -> Result<Vec<Candidate>, StoreError> {
        let mut listed = Vec::new();
        let mut pages = Pages::new(|after| self.store.sandboxes.sweep_candidates(&self.of, after, PAGE));
        while let Some(candidates) = pages.next().await? {
            let free = candidates
                .iter()
                .find(|candidate| self.held_candidates.state(candidate) == CandidateState::Free);
            let found = free.map(|candidate| self.store.sandboxes.shard_of(&candidate.sandbox_id));
            listed.extend(candidates);
            if let Some(shard) = found {
                self.with(|state| state.shard = shard);
                break;
            }
        }
        Ok(listed)
    }
}
