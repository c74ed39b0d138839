//! Lines as an API process knows them: read once in two seconds at most, for all callers.
//!
//! Invariant: what is told of a line is about right, and costs no read of its own: marks of the last walk, interpolated by the
//! time in the request id. Who may wait is decided here, before anything is recorded; who gets what, by the workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_domain::policy::{Policy, TenantLimit};
use broker_domain::waiting::{Line, MOST_LINES, MOST_PLACES, Standing, minted_at};
use broker_domain::{Limit, RequestId, Timestamp};
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

/// When the permits of limits were counted, and how many were held.
type CountedPermits = HashMap<Limit, (Instant, u32)>;

/// The lines. Clones share what was read.
#[derive(Clone, Debug)]
pub(crate) struct CachedLines {
    store: Store,
    clock: Clock,
    /// Whether requests may wait at all.
    pub(crate) on: bool,
    read: Arc<Mutex<Option<ReadLines>>>,
    permits: Arc<Mutex<CountedPermits>>,
}

impl CachedLines {
    pub(crate) fn new(store: Store, clock: Clock, on: bool) -> Self {
        Self { store, clock, on, read: Arc::default(), permits: Arc::default() }
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
        let mut limits = policy.limits_of(&line.tenant);
        if limits.any(|one| one.max == 0 && one.limit.covers_all_of(line.prefix.as_ref())) {
            return Err(Problem::new(Code::CannotWait, "The tenant's limit of this flavour is 0."));
        }
        let lines = self.now().await?;
        let own = || lines.iter().filter(|listed| listed.line.tenant == line.tenant);
        let places: u64 = own().map(|listed| listed.marks.length).sum();
        let is_new = own().all(|listed| listed.line != *line);
        Ok(places < MOST_PLACES && !(is_new && own().count() >= MOST_LINES))
    }

    /// Whether a limit keeps `line` from what is there: every permit is held, as counted two seconds ago at most.
    pub(crate) async fn is_limited(&self, line: &Line, policy: &Policy) -> Result<bool, StoreError> {
        let limited =
            policy.limits_of(&line.tenant).find(|one| one.limit.covers_all_of(line.prefix.as_ref()));
        let Some(TenantLimit { limit, max, .. }) = limited else { return Ok(false) };
        let mut counted = self.permits.lock().await;
        let now = self.clock.instant();
        counted.retain(|_, (at, _)| now.duration_since(*at) < TOLD_FOR);
        if let Some((_, held)) = counted.get(&limit) {
            return Ok(*held >= max);
        }
        let held = u32::try_from(self.store.permits.held(&limit).await?.len()).unwrap_or(u32::MAX);
        counted.insert(limit, (now, held));
        Ok(held >= max)
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
    is_limited: bool,
) -> WaitingBody {
    let flavour = policy.flavours().values().find(|flavour| Some(&flavour.prefix) == line.prefix.as_ref());
    let is_refilled = flavour.is_some_and(|flavour| flavour.refill.is_some());
    WaitingBody {
        ahead: standing.ahead,
        length: standing.length,
        since: minted_at(id).as_secs(),
        deadline: deadline.as_secs(),
        reason: match (is_limited, is_refilled) {
            (true, _) => "limit",
            (false, true) => "refill_running",
            (false, false) => "empty",
        },
        estimate_s: None,
    }
}
