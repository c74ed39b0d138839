//! Cache of the lines in an API process: read every two seconds at most, for all callers, and once a second while the table does
//! not answer.
//!
//! Invariant: the rank of a place is approximate and costs no read of its own: it is interpolated between the marks of the last walk,
//! by the time in the request id. The API decides whether a request may wait, before it is recorded; the workers decide its place.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_domain::policy::{Policy, TenantLimit};
use broker_domain::waiting::{
    GrantRate, Granted, Line, MOST_LINES, MOST_PLACES, Standing, WalkedLine, grants_until_served, minted_at,
};
use broker_domain::{FlavourName, Limit, RequestId, Timestamp};
use broker_runtime::clock::Clock;
use broker_store::{FollowedPolicy, ListedLine, Store, StoreError};

use crate::response::bodies::{EstimateBasisBody, WaitingBody};
use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::shared_read::SharedRead;

/// How long what was read is told.
const TOLD_FOR: Duration = Duration::from_secs(2);
/// How long it is told at most if it cannot be read anew: a walk may be as old.
const TOLD_AT_MOST: Duration = Duration::from_secs(60);
/// How long the workers' counts of grants are told; they say them every 30 s.
const GRANTS_TOLD_FOR: Duration = Duration::from_secs(15);
/// Counts that are older are of a process that is gone, and of another time.
const GRANTS_OF: Duration = Duration::from_secs(600);

/// What the workers granted lately, each by flavour, and when that was read.
type ReadGrants = (Instant, Arc<[Granted]>);

/// The lines as they were read last, and when that began.
type ReadLines = (Instant, Arc<KnownLines>);

/// How many permits of a limit are held. There are no more limits than the policy has had.
type CountedPermits = HashMap<Limit, SharedRead<u32>>;

/// The lines. Clones share what was read.
#[derive(Clone, Debug)]
pub(crate) struct CachedLines {
    store: Store,
    clock: Clock,
    policy: FollowedPolicy,
    /// Whether requests may wait at all.
    pub(crate) on: bool,
    read: SharedRead<Arc<KnownLines>>,
    /// The lines as they were read last, and when that began.
    before: Arc<Mutex<Option<ReadLines>>>,
    granted: Arc<tokio::sync::Mutex<Option<ReadGrants>>>,
    permits: Arc<Mutex<CountedPermits>>,
}

impl CachedLines {
    pub(crate) fn new(store: Store, clock: Clock, policy: FollowedPolicy, on: bool) -> Self {
        for reason in ["off", "limit_0", "too_many"] {
            metrics::counter!("broker_waiting_refused_total", "reason" => reason).absolute(0);
        }
        Self {
            store,
            clock,
            policy,
            on,
            read: SharedRead::default(),
            before: Arc::default(),
            granted: Arc::default(),
            permits: Arc::default(),
        }
    }

    /// The lines, two seconds old at most; while they cannot be read, a minute.
    pub(crate) async fn now(&self) -> Result<Arc<KnownLines>, Problem> {
        self.read.told_for(TOLD_FOR, &self.clock, async || self.read_or_before().await).await
    }

    /// The lines as they are now; if they cannot be read, as they were read last, a minute ago at most.
    async fn read_or_before(&self) -> Result<Arc<KnownLines>, StoreError> {
        let began = self.clock.instant();
        let read = self.read_lines().await;
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &*before) {
            (Ok(lines), _) => {
                let lines = Arc::new(lines);
                *before = Some((began, Arc::clone(&lines)));
                Ok(lines)
            }
            (Err(error), Some((at, lines))) if began.duration_since(*at) < TOLD_AT_MOST => {
                tracing::warn!("lines not read, the last ones are used: {error}");
                Ok(Arc::clone(lines))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn read_lines(&self) -> Result<KnownLines, StoreError> {
        let now = self.clock.now();
        let listed = self.store.waiting.lines(now).await?;
        let policy = self.policy.now().unwrap_or_default();
        // Only what those who wait are told goes by it.
        let stopped = stopped(&self.store, &policy, listed.iter().map(|listed| &listed.line), now).await;
        let stopped = stopped.unwrap_or_else(|error| {
            tracing::warn!("whether refill stands still is not known: {error}");
            BTreeSet::new()
        });
        Ok(KnownLines { listed, stopped })
    }

    /// What the workers granted lately, by their heartbeats. If they cannot be read, what was known before, or nothing.
    async fn granted(&self) -> Arc<[Granted]> {
        let mut read = self.granted.lock().await;
        let now = self.clock.instant();
        if let Some((at, granted)) = &*read
            && now.duration_since(*at) < GRANTS_TOLD_FOR
        {
            return Arc::clone(granted);
        }
        let granted = match self.store.instances.list().await {
            Ok(instances) => {
                let now = self.clock.now();
                let lately = instances.into_iter().filter(|one| now.since(one.heartbeat) <= GRANTS_OF);
                lately.map(|one| one.granted).collect()
            }
            Err(error) => {
                tracing::debug!("counts of grants not read: {error}");
                read.as_ref().map(|(_, before)| Arc::clone(before)).unwrap_or_default()
            }
        };
        *read = Some((now, Arc::clone(&granted)));
        granted
    }

    /// In how many seconds the request `id` in `line` may be served, of those that wait for `reason`; `None` if nothing is known.
    pub(crate) async fn estimate(
        &self,
        (line, id): (&Line, RequestId),
        lines: &KnownLines,
        policy: &Policy,
        reason: &'static str,
    ) -> Option<Estimate> {
        // The rate of grants does not predict when a permit is free, or when a stopped refill goes on.
        if matches!(reason, "limit" | "refill_stopped") {
            return None;
        }
        let flavour = match (&line.prefix, policy.flavour_with(line.prefix.as_ref())) {
            (None, _) => None,
            (Some(_), Some((name, _))) => Some(name.as_str()),
            // Grants are not counted by this prefix.
            (Some(_), None) => return None,
        };
        let now = self.clock.now();
        let granted = self.granted().await;
        let rate = GrantRate::of(granted.iter(), flavour, now)?;
        let weight =
            |listed: &ListedLine| policy.tenants().get(&listed.line.tenant).map_or(1, |of| of.weight);
        let walked = lines.listed.iter().map(|listed| WalkedLine {
            line: &listed.line,
            marks: &listed.marks,
            as_of: listed.as_of.unwrap_or(now),
            weight: weight(listed),
        });
        let grants = grants_until_served(id, line, &walked.collect::<Vec<_>>());
        Some(Estimate { seconds: rate.seconds_for(grants), rate })
    }

    /// Whether a request of `line` may wait now. One that could never be served is refused, unless its key `holds` a sandbox, with
    /// which it is answered. One too many waits not, and is answered as if it had not asked to.
    pub(crate) async fn admit(
        &self,
        line: &Line,
        policy: &Policy,
        holds: impl AsyncFnOnce() -> Result<bool, StoreError>,
    ) -> Result<bool, Problem> {
        if let Some((reason, why)) = self.never(line, policy) {
            if holds().await? {
                return Ok(false);
            }
            refused(reason);
            return Err(Problem::new(Code::CannotWait, why));
        }
        let lines = self.now().await?;
        let own = || lines.listed.iter().filter(|listed| listed.line.tenant == line.tenant);
        let places: u64 = own().map(|listed| listed.marks.length).sum();
        let is_new = own().all(|listed| listed.line != *line);
        let has_room = places < MOST_PLACES && !(is_new && own().count() >= MOST_LINES);
        if !has_room {
            refused("too_many");
        }
        Ok(has_room)
    }

    /// Why a request of `line` could never be served, if so: the word in metrics, and for its caller.
    fn never(&self, line: &Line, policy: &Policy) -> Option<(&'static str, &'static str)> {
        let mut limits = policy.limits_of(&line.tenant);
        if !self.on {
            Some(("off", "Waiting is off at this broker (BROKER_WAITING)."))
        } else if limits.any(|one| one.max == 0 && one.limit.covers_all_of(line.prefix.as_ref())) {
            Some(("limit_0", "The tenant's limit of this flavour is 0."))
        } else {
            None
        }
    }

    /// Why those in a line wait.
    pub(crate) async fn reason(&self, line: &Line, policy: &Policy) -> Result<&'static str, Problem> {
        if self.is_limited(line, policy).await? {
            return Ok("limit");
        }
        Ok(self.now().await?.reason(line, policy))
    }

    /// Whether a limit keeps `line` from what is there: every permit is held, as counted two seconds ago at most.
    async fn is_limited(&self, line: &Line, policy: &Policy) -> Result<bool, Problem> {
        let Some(TenantLimit { limit, max, .. }) = limit_before(line, policy) else { return Ok(false) };
        let counted = {
            let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
            permits.entry(limit.clone()).or_default().clone()
        };
        let count = async || {
            let held = self.store.permits.slots(&limit).await?.len();
            Ok::<_, StoreError>(u32::try_from(held).unwrap_or(u32::MAX))
        };
        Ok(counted.told_for(TOLD_FOR, &self.clock, count).await? >= max)
    }
}

/// The limit that may keep `line` from all of what it asks for.
fn limit_before(line: &Line, policy: &Policy) -> Option<TenantLimit> {
    policy.limits_of(&line.tenant).find(|one| one.limit.covers_all_of(line.prefix.as_ref()))
}

/// The flavours with a line for which nothing more is asked: refill is paused, or its hook fails.
async fn stopped(
    store: &Store,
    policy: &Policy,
    lines: impl Iterator<Item = &Line>,
    now: Timestamp,
) -> Result<BTreeSet<FlavourName>, StoreError> {
    let refilled = |line: &Line| {
        let (name, flavour) = policy.flavour_with(line.prefix.as_ref())?;
        flavour.refill.as_ref().map(|_| name.clone())
    };
    let names: Vec<_> = lines.filter_map(refilled).collect::<BTreeSet<_>>().into_iter().collect();
    let flows = store.refill.flows(&names).await?.into_iter();
    let stopped = flows.filter(|(_, flow)| flow.as_ref().is_none_or(|flow| flow.is_held(now)));
    Ok(stopped.map(|(name, _)| name).collect())
}

/// Why those in each of these lines wait, read now: for a command. The same words as an API's.
pub async fn reasons(
    store: &Store,
    policy: &Policy,
    lines: &BTreeSet<Line>,
    now: Timestamp,
) -> Result<HashMap<Line, &'static str>, StoreError> {
    let known = KnownLines { listed: Vec::new(), stopped: stopped(store, policy, lines.iter(), now).await? };
    let mut reasons = HashMap::new();
    for line in lines {
        let is_limited = match limit_before(line, policy) {
            Some(TenantLimit { limit, max, .. }) => store.permits.slots(&limit).await?.len() >= max as usize,
            None => false,
        };
        let reason = if is_limited { "limit" } else { known.reason(line, policy) };
        reasons.insert(line.clone(), reason);
    }
    Ok(reasons)
}

/// Counts a request that may not wait.
fn refused(reason: &'static str) {
    metrics::counter!("broker_waiting_refused_total", "reason" => reason).increment(1);
}

/// Counts the end of a wait that an API told, in seconds.
pub(crate) fn waited(id: RequestId, now: Timestamp, outcome: &'static str) {
    let since = now.since(minted_at(id)).as_secs_f64();
    metrics::histogram!("broker_waiting_seconds", "outcome" => outcome).record(since);
}

/// In how many seconds a place may be served, and by which rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    seconds: u64,
    rate: GrantRate,
}

/// What a request that stands there is told.
pub(crate) fn told(
    standing: Standing,
    id: RequestId,
    deadline: Timestamp,
    reason: &'static str,
    estimate: Option<Estimate>,
) -> WaitingBody {
    let basis =
        |Estimate { rate, .. }| EstimateBasisBody { granted: rate.granted, within_s: rate.within.as_secs() };
    WaitingBody {
        ahead: standing.ahead,
        length: standing.length,
        since: minted_at(id).as_secs(),
        deadline: deadline.as_secs(),
        reason,
        estimate_s: estimate.map(|estimate| estimate.seconds),
        estimate_basis: estimate.map(basis),
    }
}

/// What is known of the lines.
#[derive(Debug, Default)]
pub(crate) struct KnownLines {
    pub(crate) listed: Vec<ListedLine>,
    /// Flavours for which nothing more is asked.
    stopped: BTreeSet<FlavourName>,
}

impl KnownLines {
    /// Where a parked request stands, about.
    pub(crate) fn standing(&self, line: &Line, id: RequestId, now: Timestamp) -> Standing {
        let listed = self.listed.iter().find(|listed| listed.line == *line);
        listed.map_or(Standing { ahead: 0, length: 1 }, |listed| {
            listed.marks.standing(id, listed.as_of.unwrap_or(now))
        })
    }

    /// Why those in a line wait whom no limit keeps from what is there.
    fn reason(&self, line: &Line, policy: &Policy) -> &'static str {
        match policy.flavour_with(line.prefix.as_ref()) {
            Some((name, _)) if self.stopped.contains(name) => "refill_stopped",
            Some((_, flavour)) if flavour.refill.is_some() => "refill_running",
            Some(_) | None => "empty",
        }
    }
}
