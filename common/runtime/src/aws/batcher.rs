//! Many callers, few calls: single items in, full batches under load, no delay without it.
//!
//! The rule: while no call is under way, an item goes at once; otherwise it waits and goes, with up to `items` others,
//! as soon as a call ends. Two things do not wait for that while fewer than `flights` calls are under way: a full batch,
//! and anything at all once every call takes longer than [`Bounds::max_wait`]. So one caller alone never waits, a few wait
//! for less than one call, a slow call delays what is behind it by no more than the patience, and what goes beside a call
//! of the usual length is a full batch: each call costs the same, whatever it carries. Items submitted before a new flight's
//! task first runs go with it.
//! Batches that are not full leave at least `min_interval` apart, where calls are shorter than that: the first item of a quiet
//! time goes at once, what follows it closely goes together.
//!
//! Invariants: every item is in at most one batch, batches are taken in the order of submission; an item whose caller left
//! before its batch was taken stays behind, so that an outage collects nothing that nobody waits for; flights are tasks of
//! their own, so a caller that leaves cancels nobody else; a flight that panics loses its own batch only, and its slot
//! goes on; while anything waits there is a slot that will take it: a young one, or the next to land. What it does not do: retry, or know what an item is.

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
    pub min_interval: Duration,
    /// How long a call keeps what is not full waiting; at least the spacing.
    pub max_wait: Duration,
}

impl Bounds {
    /// Several times what a call to AWS in the same region takes (5 to 10 ms), and well below what a user notices.
    pub const PATIENCE: Duration = Duration::from_millis(25);
}

/// The call that carried an item ended without a result for it: it panicked, or answered too little, or the runtime
/// is shutting down. Whether it took effect is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call ended without a result")]
pub struct BatchLost;

type Flight<Out> = Pin<Box<dyn Future<Output = Vec<Out>> + Send>>;
type Fly<In, Out> = dyn Fn(Vec<In>) -> Flight<Out> + Send + Sync;
type Weigh<In> = dyn Fn(&In) -> usize + Send + Sync;

/// Collects items into calls; clones share their flights.
pub struct Batcher<In, Out>(Arc<Inner<In, Out>>);

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
    /// Slots in use.
    flying: usize,
    /// Those of them whose call has not yet outlasted the patience: what is not full waits for one of these.
    young: usize,
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
            .field("flying", &state.flying)
            .finish()
    }
}

impl<In: Send + 'static, Out: Send + 'static> Batcher<In, Out> {
    /// A coalescer whose calls are `fly`, which answers one result per item, in their order. `weigh` is what an item
    /// takes of [`Bounds::weight`].
    pub fn new<F, Fut>(bounds: Bounds, weigh: impl Fn(&In) -> usize + Send + Sync + 'static, fly: F) -> Self
    where
        F: Fn(Vec<In>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<Out>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            bounds: Bounds {
                flights: bounds.flights.max(1),
                items: bounds.items.max(1),
                max_wait: bounds.max_wait.max(bounds.min_interval),
                ..bounds
            },
            weigh: Box::new(weigh),
            fly: Box::new(move |batch| Box::pin(fly(batch))),
            state: Mutex::new(State { waiting: VecDeque::new(), flying: 0, young: 0 }),
            full: Notify::new(),
        }))
    }

    /// Hands in `item` and waits for its result. Dropped before the item's batch was taken, the item stays behind.
    pub async fn submit(&self, item: In) -> Result<Out, BatchLost> {
        let (result, outcome) = oneshot::channel();
        if self.0.enqueue(Waiting { item, result }) {
            Inner::take_off(&self.0);
        }
        outcome.await.map_err(|_| BatchLost)
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
        let needed = self.takes_slot(&mut state);
        let is_full = self.is_full(&state);
        drop(state);
        if is_full {
            self.full.notify_one();
        }
        needed
    }

    /// Takes a slot for what waits, if it need not wait for a call and a slot is free.
    fn takes_slot(&self, state: &mut State<In, Out>) -> bool {
        let is_due = !state.waiting.is_empty() && (state.young == 0 || self.is_full(state));
        let needed = is_due && state.flying < self.bounds.flights;
        state.flying += usize::from(needed);
        state.young += usize::from(needed);
        needed
    }

    fn is_full(&self, state: &State<In, Out>) -> bool {
        state.waiting.len() >= self.bounds.items
    }

    /// Gives a slot that was taken to a task of its own.
    fn take_off(this: &Arc<Self>)
    where
        In: Send + 'static,
        Out: Send + 'static,
    {
        tokio::spawn(Arc::clone(this).keep_flying());
    }

    /// One slot: call after call, with their spacing, until nothing waits or what waits is left to another slot.
    async fn keep_flying(self: Arc<Self>)
    where
        In: Send + 'static,
        Out: Send + 'static,
    {
        while let Some((items, callers)) = self.next_batch() {
            let min_interval = self.min_interval();
            // A panic has already been reported by the panic hook; the callers see it as `BatchLost`.
            let mut flight = pin!(caught(async { (self.fly)(items).await }));
            let landed = tokio::select! {
                biased;
                landed = &mut flight => landed,
                () = tokio::time::sleep(self.bounds.max_wait) => {
                    if self.grows_old() {
                        Self::take_off(&self);
                    }
                    let landed = flight.await;
                    self.state().young += 1;
                    landed
                }
            };
            for (caller, result) in callers.into_iter().zip(landed.unwrap_or_default()) {
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

    /// A call has outlasted the patience; says whether what waits behind it needs a slot of its own, which it then takes.
    fn grows_old(&self) -> bool {
        let mut state = self.state();
        state.young -= 1;
        self.takes_slot(&mut state)
    }

    /// Over when a spacing has passed since this call.
    fn min_interval(&self) -> impl Future<Output = ()> + use<In, Out> {
        // No timer where there is no spacing: the shortest takes a millisecond.
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

    /// The next batch, or `None`, which gives the slot back in the same instant, so that no item is left without one:
    /// of several young slots, the last to land takes what is not full.
    fn next_batch(&self) -> Option<(Vec<In>, Vec<oneshot::Sender<Out>>)> {
        let mut state = self.state();
        if state.young > 1 && !self.is_full(&state) {
            state.flying -= 1;
            state.young -= 1;
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
            state.young -= 1;
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
#[path = "batcher_tests.rs"]
mod tests;
