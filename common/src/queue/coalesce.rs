//! Many callers, few calls: single items in, full batches under load, no delay without it.
//!
//! The rule: while no call is under way, an item goes at once; otherwise it waits and goes, with up to `items` others,
//! as soon as a call ends. A full batch does not wait for that while fewer than `flights` calls are under way. So one
//! caller alone never waits, a few wait for less than one call, and what goes beside another call is a full batch:
//! each call costs the same, whatever it carries. Items submitted before a new flight's task first runs go with it.
//! Batches that are not full leave at least `spacing` apart, where calls are shorter than that: the first item of a quiet
//! time goes at once, what follows it closely goes together.
//!
//! Invariants: every item is in at most one batch, batches are taken in the order of submission; an item whose caller left
//! before its batch was taken stays behind, so that an outage collects nothing that nobody waits for; flights are tasks of
//! their own, so a caller that leaves cancels nobody else; a flight that panics loses its own batch only, and its slot
//! goes on; while anything waits there is a slot. What it does not do: retry, or know what an item is.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

/// What bounds the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Calls under way at once; at least 1.
    pub flights: usize,
    /// Items in one call; at least 1.
    pub items: usize,
    /// The weight of one call, as the weigh function counts it. An item heavier than this goes alone.
    pub weight: usize,
    /// The least time from the start of a call to that of the next, unless a full batch waits.
    pub spacing: Duration,
}

/// The call that carried an item ended without a result for it: it panicked, or answered too little, or the runtime
/// is shutting down. Whether it took effect is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call ended without a result")]
pub struct FlightLost;

type Flight<Out> = Pin<Box<dyn Future<Output = Vec<Out>> + Send>>;
type Fly<In, Out> = dyn Fn(Vec<In>) -> Flight<Out> + Send + Sync;
type Weigh<In> = dyn Fn(&In) -> usize + Send + Sync;

/// Collects items into calls; clones share their flights.
pub struct Coalescer<In, Out>(Arc<Inner<In, Out>>);

struct Inner<In, Out> {
    bounds: Bounds,
    weigh: Box<Weigh<In>>,
    fly: Box<Fly<In, Out>>,
    state: Mutex<State<In, Out>>,
    /// A batch is full: it need not wait for its spacing.
    full: Notify,
}

struct State<In, Out> {
    waiting: VecDeque<Waiting<In, Out>>,
    flying: usize,
}

struct Waiting<In, Out> {
    item: In,
    result: oneshot::Sender<Out>,
}

impl<In, Out> Clone for Coalescer<In, Out> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<In, Out> fmt::Debug for Coalescer<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        f.debug_struct("Coalescer")
            .field("bounds", &self.0.bounds)
            .field("waiting", &state.waiting.len())
            .field("flying", &state.flying)
            .finish()
    }
}

impl<In: Send + 'static, Out: Send + 'static> Coalescer<In, Out> {
    /// A coalescer whose calls are `fly`, which answers one result per item, in their order. `weigh` is what an item
    /// takes of [`Bounds::weight`].
    pub fn new<F, Fut>(bounds: Bounds, weigh: impl Fn(&In) -> usize + Send + Sync + 'static, fly: F) -> Self
    where
        F: Fn(Vec<In>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Out>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            bounds: Bounds { flights: bounds.flights.max(1), items: bounds.items.max(1), ..bounds },
            weigh: Box::new(weigh),
            fly: Box::new(move |batch| Box::pin(fly(batch))),
            state: Mutex::new(State { waiting: VecDeque::new(), flying: 0 }),
            full: Notify::new(),
        }))
    }

    /// Hands in `item` and waits for its result. Dropped before the item's batch was taken, the item stays behind.
    pub async fn submit(&self, item: In) -> Result<Out, FlightLost> {
        let (result, outcome) = oneshot::channel();
        if self.0.enqueue(Waiting { item, result }) {
            tokio::spawn(Arc::clone(&self.0).keep_flying());
        }
        outcome.await.map_err(|_| FlightLost)
    }

    /// How many items wait for a slot.
    pub fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }
}

impl<In, Out> Inner<In, Out> {
    fn state(&self) -> MutexGuard<'_, State<In, Out>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends, and says whether a slot is needed and free, which it then takes.
    fn enqueue(&self, waiting: Waiting<In, Out>) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        let is_full = self.is_full(&state);
        let needed = state.flying == 0 || (is_full && state.flying < self.bounds.flights);
        state.flying += usize::from(needed);
        drop(state);
        if is_full {
            self.full.notify_one();
        }
        needed
    }

    fn is_full(&self, state: &State<In, Out>) -> bool {
        state.waiting.len() >= self.bounds.items
    }

    /// One slot: call after call, with their spacing, until nothing waits or what waits is left to another slot.
    async fn keep_flying(self: Arc<Self>) {
        while let Some((items, callers)) = self.next_batch() {
            let spacing = self.spacing();
            // A panic has already been reported by the panic hook; the callers see it as `FlightLost`.
            let results = caught(async { (self.fly)(items).await }).await.unwrap_or_default();
            for (caller, result) in callers.into_iter().zip(results) {
                // The caller may have left.
                let _ = caller.send(result);
            }
            tokio::select! {
                biased;
                () = self.until_full() => {}
                () = spacing => {}
            }
        }
    }

    /// Over when a spacing has passed since this call.
    fn spacing(&self) -> impl Future<Output = ()> + use<In, Out> {
        // No timer where there is no spacing: the shortest takes a millisecond.
        let passed = (!self.bounds.spacing.is_zero()).then(|| tokio::time::sleep(self.bounds.spacing));
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

    /// The next batch, or `None`, which gives the slot back in the same instant, so that no item is left without one:
    /// of several slots, the last to land takes what is not full.
    fn next_batch(&self) -> Option<(Vec<In>, Vec<oneshot::Sender<Out>>)> {
        let mut state = self.state();
        if state.flying > 1 && !self.is_full(&state) {
            state.flying -= 1;
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
            state.flying -= 1;
            return None;
        }
        Some((items, callers))
    }
}

/// What `future` comes to, or `None` if it panics.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_panic) => std::task::Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
