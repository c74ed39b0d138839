//! History of a run: which client got which response, and when.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A (track, idempotency key).
pub(crate) type Key = (String, String);

/// A sandbox that a client was told of. The id of one that was deleted may be that of another account later (the provider swaps
/// ids in a run): what it created after the deletion is another sandbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Given {
    pub(crate) id: String,
    pub(crate) account: String,
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.account)
    }
}

/// A request of a client and its response. `None` for a response: the connection broke, the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// An allocate was answered with this sandbox, at once or when its outcome was polled.
    Sandbox(Given),
    /// An allocate was answered 409: nothing is available, and the key holds nothing.
    NothingThere,
    /// A return of this sandbox was answered 200.
    Returned(Given),
    /// A return of this sandbox was sent, and its response was not 200, or none came.
    MarkUnanswered(Given),
    /// A return of this sandbox was refused: 403 or 404.
    MarkRefused(Given, u16),
    /// A GET of this sandbox was answered with this status.
    Looked(Given, u16),
    /// The outcome of the request at this location was polled: this sandbox.
    Polled(String, Given),
    /// A request that stood in a line has a sandbox.
    Waited,
    /// The cancellation of the request at this location was answered 200.
    Cancelled(String),
    /// A request was answered 202 and never ended.
    NeverEnded(String),
    /// Something that no story has.
    Surprise(String),
}

/// One call of a client: between `sent` and `received`, the key got this response.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) key: Key,
    pub(crate) sent: Duration,
    pub(crate) received: Duration,
    pub(crate) told: Told,
}

/// Everything that happened to all clients.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    inner: Mutex<Inner>,
    /// The number of different sandboxes in responses.
    allocations: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Event>,
    cancelled: usize,
    waited: usize,
    ids: BTreeSet<String>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), inner: Mutex::default(), allocations: watch::Sender::new(0) }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().expect("no client panicked while it wrote"))
    }

    pub(crate) fn add(&self, event: Event) {
        self.with(|inner| {
            if let Told::Sandbox(sandbox) = &event.told
                && inner.ids.insert(sandbox.id.clone())
            {
                self.allocations.send_replace(inner.ids.len());
            }
            inner.cancelled += usize::from(matches!(event.told, Told::Cancelled(_)));
            inner.waited += usize::from(event.told == Told::Waited);
            inner.events.push(event);
        });
    }

    /// The number of different sandboxes in responses.
    pub(crate) fn allocations(&self) -> usize {
        *self.allocations.borrow()
    }

    /// Waits until more than `count` different sandboxes were in responses.
    pub(crate) async fn more_than(&self, count: usize) {
        let mut allocations = self.allocations.subscribe();
        // The sender lives as long as this.
        let _ = allocations.wait_for(|told| *told > count).await;
    }

    /// How many requests were cancelled.
    pub(crate) fn cancellations(&self) -> usize {
        self.with(|inner| inner.cancelled)
    }

    /// How many requests got a sandbox after they stood in a line.
    pub(crate) fn waits(&self) -> usize {
        self.with(|inner| inner.waited)
    }

    /// What happened until now.
    pub(crate) fn so_far(&self) -> Vec<Event> {
        self.with(|inner| inner.events.clone())
    }

    /// All of it, which is empty then.
    pub(crate) fn take(&self) -> Vec<Event> {
        self.with(|inner| std::mem::take(&mut inner.events))
    }
}
