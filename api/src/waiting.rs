//! Lines as an API process knows them: read once in two seconds at most, for all callers.
//!
//! Invariant: what is told of a line is about right, and costs no read of its own: marks of the last walk, interpolated by the
//! time in the request id. Who may wait is decided here, before anything is recorded; who gets what, by the workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_domain::policy::Policy;
use broker_domain::waiting::{Line, MOST_LINES, MOST_PLACES, Standing, minted_at};
use broker_domain::{RequestId, Timestamp};
use broker_runtime::clock::Clock;
use broker_store::{ListedLine, Store, StoreError};
use tokio::sync::Mutex;

use crate::response::bodies::WaitingBody;
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// How long what was read is told.
const TOLD_FOR: Duration = Duration::from_secs(2);

/// When the lines were read, and what they were.
type ReadLines = (Instant, Arc<[ListedLine]>);

/// The lines. Clones share what was read.
#[derive(Clone, Debug)]
pub(crate) struct CachedLines {
    store: Store,
    clock: Clock,
    /// Whether requests may wait at all.
    pub(crate) on: bool,
    read: Arc<Mutex<Option<ReadLines>>>,
}

impl CachedLines {
    pub(crate) fn new(store: Store, clock: Clock, on: bool) -> Self {
        Self { store, clock, on, read: Arc::default() }
    }

    /// The lines, two seconds old at most.
    pub(crate) async fn now(&self) -> Result<Arc<[ListedLine]>, StoreError> {
        let mut read = self.read.lock().await;
        let now = self.clock.instant();
        if let Some((at, lines)) = &*read
            && now.duration_since(*at) < TOLD_FOR
        {
            return Ok(Arc::clone(lines));
        }
        let lines: Arc<[ListedLine]> = self.store.waiting.lines(self.clock.now()).await?.into();
        *read = Some((now, Arc::clone(&lines)));
        Ok(lines)
    }

    /// Whether a request of `line` may wait now. One that could never be served is refused; one too many waits not, and is
    /// answered as if it had not asked to.
    pub(crate) async fn admit(&self, line: &Line, policy: &Policy) -> Result<bool, Problem> {
        if !self.on {
            return Err(Problem::new(Code::CannotWait, "Waiting is off at this broker (BROKER_WAITING)."));
        }
        let flavour =
            policy.flavours().iter().find(|(_, flavour)| Some(&flavour.prefix) == line.prefix.as_ref());
        let limit = flavour.and_then(|(name, _)| policy.tenants().get(&line.tenant)?.limits.get(name));
        if limit == Some(&0) {
            return Err(Problem::new(Code::CannotWait, "The tenant's limit of this flavour is 0."));
        }
        let lines = self.now().await?;
        let own = || lines.iter().filter(|listed| listed.line.tenant == line.tenant);
        let places: u64 = own().map(|listed| listed.marks.length).sum();
        let is_new = own().all(|listed| listed.line != *line);
        Ok(places < MOST_PLACES && !(is_new && own().count() >= MOST_LINES))
    }

    /// Where a parked request stands, about.
    pub(crate) async fn standing(&self, line: &Line, id: RequestId) -> Result<Standing, StoreError> {
        let lines = self.now().await?;
        let listed = lines.iter().find(|listed| listed.line == *line);
        Ok(listed.map_or(Standing { ahead: 0, length: 1 }, |listed| {
            listed.marks.standing(id, listed.as_of.unwrap_or_else(|| self.clock.now()))
        }))
    }
}

/// What a request that stands there is told.
pub(crate) fn told(
    standing: Standing,
    id: RequestId,
    deadline: Timestamp,
    line: &Line,
    policy: &Policy,
) -> WaitingBody {
    let flavour = policy.flavours().values().find(|flavour| Some(&flavour.prefix) == line.prefix.as_ref());
    let is_refilled = flavour.is_some_and(|flavour| flavour.refill.is_some());
    WaitingBody {
        ahead: standing.ahead,
        length: standing.length,
        since: minted_at(id).as_secs(),
        deadline: deadline.as_secs(),
        reason: if is_refilled { "refill_running" } else { "empty" },
        estimate_s: None,
    }
}
