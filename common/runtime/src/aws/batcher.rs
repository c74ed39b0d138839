//! The batcher: turns single items into batch calls, full under load and without delay when idle.
//!
//! The rule: while no call is in flight, an item goes at once; otherwise it waits and goes, with up to `items` others, when
//! a call ends. Two things do not wait for that while fewer than `in_flight` calls are in flight: a full batch, and any item
//! once every call takes longer than [`Bounds::max_wait`]. So a single caller never waits, a few callers wait for less than
//! one call, a slow call delays the items behind it by `max_wait` at most, and beside a call of the usual length only full
//! batches go: each call costs the same, whatever it carries. A new slot lets the tasks that are ready run first: their items
//! go with it.
//! Calls of which none is quick cross a network: they cost the machine little, and items wait behind them for a quarter of that.
//! Batches that are not full leave at least `min_interval` apart, where calls are shorter than that: the first item after a
//! quiet time goes at once, items close behind it go together.
//!
//! Invariants: every item is in at most one batch, and batches are taken in the order of submission; an item whose caller
//! left before its batch was taken is dropped, so an outage collects no abandoned items; calls run in tasks of their own, so
//! a caller that leaves cancels no other; a call that panics loses its own batch only, and its slot goes on; while anything
//! waits there is a slot that will take it: a recent one, or the next whose call ends. It neither retries nor knows its items.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::distance::Distance;
use crate::panics::caught;

/// The bounds of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most calls in flight at once; at least 1.
    pub in_flight: usize,
    /// Items in one call; at least 1.
    pub items: usize,
    /// The weight of one call, as the weigh function counts it. An item heavier than this goes alone.
    pub weight: usize,
    /// The least time from the start of a call to that of the next, unless a full batch waits.
    pub min_interval: Duration,
    /// How long a call keeps a batch that is not full waiting; at least `min_interval`. A quarter of it where no call is quick.
    pub max_wait: Duration,
}

impl Bounds {
    /// About what a call to AWS in the same region takes (5 to 10 ms): an item waits behind a call for half of it, on average.
    pub const MAX_WAIT: Duration = Duration::from_millis(8);
}

/// The part of `max_wait` that an item waits behind a call that crosses a network.
const FAR_PART: u32 = 4;

/// The call that carried an item ended without a result for it: it panicked, or answered too little, or the runtime
/// is shutting down. Whether it took effect is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call ended without a result")]
pub struct BatchLost;

type BatchCall<Out> = Pin<Box<dyn Future<Output = Vec<Out>> + Send>>;
type CallBatch<In, Out> = dyn Fn(Vec<In>) -> BatchCall<Out> + Send + Sync;
type Weigh<In> = dyn Fn(&In) -> usize + Send + Sync;

/// Collects items into batch calls; clones share the calls in flight.
pub struct Batcher<In, Out>(Arc<SharedBatcher<In, Out>>);

struct SharedBatcher<In, Out> {
    bounds: Bounds,
    weigh: Box<Weigh<In>>,
    call: Box<CallBatch<In, Out>>,
    state: Mutex<BatcherState<In, Out>>,
    /// Notified when a batch is full: it need not wait for `min_interval`.
    full: Notify,
}

struct BatcherState<In, Out> {
    waiting: VecDeque<Waiting<In, Out>>,
    /// Slots in use.
    in_flight: usize,
    /// Slots whose call has run for less than `max_wait`: a batch that is not full waits for one of these.
    recent: usize,
    distance: Distance,
}

struct Waiting<In, Out> {
    item: In,
    result: oneshot::Sender<Out>,
}

impl<In, Out> Clone for Batcher<In, Out> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<In, Out> fmt::Debug for Batcher<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        f.debug_struct("Batcher")
            .field("bounds", &self.0.bounds)
            .field("waiting", &state.waiting.len())
            .field("in_flight", &state.in_flight)
            .finish()
    }
}

impl<In: Send + 'static, Out: Send + 'static> Batcher<In, Out> {
    /// A batcher that makes calls with `call`, which returns one result per item, in their order. `weigh` is the weight of
    /// an item within [`Bounds::weight`].
    pub fn new<F, Fut>(bounds: Bounds, weigh: impl Fn(&In) -> usize + Send + Sync + 'static, call: F) -> Self
    where
        F: Fn(Vec<In>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Out>> + Send + 'static,
    {
        Self(Arc::new(SharedBatcher {
            bounds: Bounds {
                in_flight: bounds.in_flight.max(1),
                items: bounds.items.max(1),
                max_wait: bounds.max_wait.max(bounds.min_interval),
                ..bounds
            },
            weigh: Box::new(weigh),
            call: Box::new(move |batch| Box::pin(call(batch))),
            state: Mutex::new(BatcherState {
                waiting: VecDeque::new(),
                in_flight: 0,
                recent: 0,
                distance: Distance::default(),
            }),
            full: Notify::new(),
        }))
    }

    /// Submits `item` and waits for its result. If it is dropped before the batch was taken, the item is not sent.
    pub async fn submit(&self, item: In) -> Result<Out, BatchLost> {
        let (result, outcome) = oneshot::channel();
        if self.0.enqueue(Waiting { item, result }) {
            SharedBatcher::spawn_slot(&self.0);
        }
        outcome.await.map_err(|_| BatchLost)
    }

    /// The number of items that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }
}

impl<In, Out> SharedBatcher<In, Out> {
    fn state(&self) -> MutexGuard<'_, BatcherState<In, Out>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the item. If a slot is needed and free, takes it and returns true.
    fn enqueue(&self, waiting: Waiting<In, Out>) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        let needed = self.take_slot_if_due(&mut state);
        let is_full = self.is_full(&state);
        drop(state);
        if is_full {
            self.full.notify_one();
        }
        needed
    }

    /// Takes a slot if one is free and the waiting items need not wait for a call.
    fn take_slot_if_due(&self, state: &mut BatcherState<In, Out>) -> bool {
        let is_due = !state.waiting.is_empty() && (state.recent == 0 || self.is_full(state));
        let needed = is_due && state.in_flight < self.bounds.in_flight;
        state.in_flight += usize::from(needed);
        state.recent += usize::from(needed);
        needed
    }

    fn is_full(&self, state: &BatcherState<In, Out>) -> bool {
        state.waiting.len() >= self.bounds.items
    }

    /// Runs a slot that was taken in a task of its own.
    fn spawn_slot(this: &Arc<Self>)
    where
        In: Send + 'static,
        Out: Send + 'static,
    {
        let slot = Arc::clone(this);
        tokio::spawn(async move {
            // Tasks that were woken together submit first: their items go in one call.
            tokio::task::yield_now().await;
            slot.run_calls().await;
        });
    }

    /// One slot: call after call, `min_interval` apart, until nothing waits or another slot takes what waits.
    async fn run_calls(self: Arc<Self>)
    where
        In: Send + 'static,
        Out: Send + 'static,
    {
        while let Some((items, callers)) = self.next_batch() {
            let (began, min_interval) = (Instant::now(), self.min_interval());
            // A panic has already been reported by the panic hook; the callers see it as `BatchLost`.
            let mut running = pin!(caught(async { (self.call)(items).await }));
            let results = tokio::select! {
                biased;
                results = &mut running => results,
                () = tokio::time::sleep(self.max_wait()) => {
                    if self.exceeds_max_wait() {
                        Self::spawn_slot(&self);
                    }
                    let results = running.await;
                    self.state().recent += 1;
                    results
                }
            };
            self.state().distance.learn(began.elapsed());
            for (caller, result) in callers.into_iter().zip(results.unwrap_or_default()) {
                // The caller may have left.
                let _ = caller.send(result);
            }
            tokio::select! {
                biased;
                () = self.until_full() => {}
                () = min_interval => {}
            }
        }
    }

    /// How long a call that begins now keeps a batch that is not full waiting.
    fn max_wait(&self) -> Duration {
        if self.state().distance.is_far() { self.bounds.max_wait / FAR_PART } else { self.bounds.max_wait }
    }

    /// Called when a call has run for `max_wait`. If the items behind it need a slot of their own, takes it and returns true.
    fn exceeds_max_wait(&self) -> bool {
        let mut state = self.state();
        state.recent -= 1;
        self.take_slot_if_due(&mut state)
    }

    /// Resolves when `min_interval` has passed since this call.
    fn min_interval(&self) -> impl Future<Output = ()> + use<In, Out> {
        // No timer for an interval of zero: the shortest timer takes a millisecond.
        let passed =
            (!self.bounds.min_interval.is_zero()).then(|| tokio::time::sleep(self.bounds.min_interval));
        async {
            if let Some(passed) = passed {
                passed.await;
            }
        }
    }

    async fn until_full(&self) {
        while !self.is_full(&self.state()) {
            self.full.notified().await;
        }
    }

    /// The next batch, or `None`, which frees the slot in the same instant, so that no item is left without one: of several
    /// recent slots, the last whose call ends takes the batch that is not full.
    fn next_batch(&self) -> Option<(Vec<In>, Vec<oneshot::Sender<Out>>)> {
        let mut state = self.state();
        if state.recent > 1 && !self.is_full(&state) {
            state.in_flight -= 1;
            state.recent -= 1;
            return None;
        }
        let (mut items, mut callers, mut weight) = (Vec::new(), Vec::new(), 0_usize);
        while items.len() < self.bounds.items {
            let Some(next) = state.waiting.front() else { break };
            if next.result.is_closed() {
                state.waiting.pop_front();
                continue;
            }
            weight = weight.saturating_add((self.weigh)(&next.item));
            if weight > self.bounds.weight && !items.is_empty() {
                break;
            }
            let Some(Waiting { item, result }) = state.waiting.pop_front() else { break };
            items.push(item);
            callers.push(result);
        }
        if items.is_empty() {
            state.in_flight -= 1;
            state.recent -= 1;
            return None;
        }
        Some((items, callers))
    }
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
