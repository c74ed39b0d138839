//! Stories for operators: everything that is known of one sandbox in the order of time, and why a track has what it has. The
//! same for `/v1/admin`, the console, `broker sandbox history` and `broker track`.
//!
//! Invariant: a story costs a bounded number of reads: of a sandbox its record, its last lease, that lease's request, and the
//! audit of eight days, a megabyte of each at most; of a track its lease, that lease's sandbox and request, the census, whether
//! the pool is closed, the list of the lines, at most eight reads of places in the lines of its lease's tenant and eight in those of
//! all, the reservations, and the permits of its tenant's limits, or of at most 100 of all. What such a bound leaves out is not
//! told as not there.

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{
    EndReason, Lease, LeaseKey, PersistedRequest, RequestId, SandboxId, Status, TenantName, Timestamp,
    TrackId,
};
use broker_messages::summarize;
use broker_store::waiting::{self, WaitingFilter, WaitingPage};
use broker_store::{AuditLine, Record, Store, StoreError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::response::bodies::PooledSandbox;
use crate::story_limits::{self, HeldLimit};

/// How many days of the audit are read, today included.
const AUDIT_DAYS: u32 = 8;
/// How many reads of places are made for a track that may wait.
const PLACE_READS: usize = 8;
/// The section of the runbook for who waits.
const WAITS: &str = "waiting";
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What happened, or will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Event {
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The kind: a word for programs.
    pub kind: &'static str,
    /// What, for people.
    pub text: String,
    /// The operator, if one did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
}

/// The story of a sandbox.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SandboxStory {
    /// The sandbox.
    #[schemars(with = "PooledSandbox<'_>")]
    pub sandbox: Value,
    /// What happened, the oldest first; what is due lies in the future.
    pub events: Vec<Event>,
    /// From when on the audit was read, in seconds since the epoch.
    pub audit_since: u64,
    /// Whether a day of it was too long to be read whole.
    pub audit_is_partial: bool,
}

/// What was read of a sandbox.
struct StoryFacts {
    record: Record,
    lease: Option<Lease>,
    request: Option<PersistedRequest>,
    audit: Vec<AuditLine>,
}

/// The story of a sandbox, if there is one.
pub async fn of_sandbox(
    store: &Store,
    policy: &Policy,
    id: &SandboxId,
    now: Timestamp,
) -> Result<Option<SandboxStory>, StoreError> {
    let Some(record) = store.sandboxes.record(id).await? else { return Ok(None) };
    let lease = match &record.sandbox.allocation {
        Some(allocation) => store.leases.get(&allocation.lease_key).await?,
        None => None,
    };
    // The key may hold another sandbox by now.
    let lease = lease.filter(|lease| lease.grant.sandbox_id == *id);
    let request = match &lease {
        Some(lease) => store.requests.get(lease.request_id).await?,
        None => None,
    };
    let since = now.minus(DAY * (AUDIT_DAYS - 1));
    let (mut audit, mut audit_is_partial) = (Vec::new(), false);
    for days_ago in 0..AUDIT_DAYS {
        let page = store.audit.latest_of_day(now.minus(DAY * days_ago), Some(id.as_str()), 0, None).await?;
        audit_is_partial |= page.next.is_some();
        audit.extend(page.items);
    }
    let seen = StoryFacts { record, lease, request, audit };
    Ok(Some(SandboxStory {
        sandbox: shown(&seen.record, policy),
        events: events(&seen),
        audit_since: since.as_secs() / DAY.as_secs() * DAY.as_secs(),
        audit_is_partial,
    }))
}

/// A sandbox with its flavour.
fn shown(record: &Record, policy: &Policy) -> Value {
    serde_json::json!(PooledSandbox::new(record, policy.flavour_of(&record.sandbox.name)))
}

fn event(at: Timestamp, kind: &'static str, text: impl Into<String>) -> Event {
    Event { at_ms: at.as_ms(), kind, text: text.into(), who: None }
}

fn events(seen: &StoryFacts) -> Vec<Event> {
    let Record {
        sandbox,
        due,
        attempts,
        deletion_error,
        deleted_at,
        created_at,
        updated_at,
        last_synced,
        quarantine,
        reserved_for: _,
        gate: _,
    } = &seen.record;
    let text =
        format!("Entered the pool as {}; the provider calls it {}.", sandbox.name, sandbox.external_id);
    let mut events = vec![event(*created_at, "arrived", text)];
    events.extend(last_synced.map(|at| event(at, "synced", "Sync last wrote it from the provider's list.")));
    if let Some(lease) = &seen.lease {
        events.extend(asked(lease, seen.request.as_ref()));
    }
    if let Some(allocation) = &sandbox.allocation {
        let LeaseKey { track, key } = &allocation.lease_key;
        let lab = allocation.track_name.as_ref().map(|lab| format!(", lab {lab}")).unwrap_or_default();
        let key =
            if key.as_str() == track.as_str() { String::new() } else { format!(" under the key {key}") };
        let text = format!("Allocated to {track}{key}{lab}.");
        events.push(event(allocation.allocated_at, "allocated", text));
        if sandbox.status == Status::Allocated {
            events.push(event(allocation.expires_at, "expires", "The owner's time ends."));
        }
    }
    events.extend(quarantine.as_ref().map(|why| {
        let text = format!("Put into quarantine by {} ({}): {}.", why.by, why.cause, why.reason);
        event(why.at, "quarantined", text)
    }));
    match seen.lease.as_ref().and_then(|lease| lease.end.as_ref()) {
        Some(end) => events.push(event(end.at, "ended", ended(end.reason))),
        // A lease is forgotten after its time; the sandbox remembers.
        None => {
            events.extend(sandbox.deletion_requested_at.map(|at| {
                event(at, "ended", sandbox.end_reason.map_or("Its deletion was asked for.", ended))
            }))
        }
    }
    if *attempts > 0 || deletion_error.is_some() {
        let error = deletion_error.as_deref().unwrap_or("no reason is kept");
        let text = format!("The provider did not delete it ({attempts} failed attempts): {error}.");
        events.push(event(*updated_at, "deletion_failed", text));
    }
    events.extend(
        deleted_at.map(|at| event(at, "deleted", "The provider deleted it; the record is a tombstone.")),
    );
    events.extend(due.and_then(|at| match sandbox.status {
        Status::PendingDeletion => Some(event(at, "deletion_due", "Its next deletion is due.")),
        Status::DeletionFailed => Some(event(at, "deletion_due", "Its deletion is tried anew.")),
        Status::Stale => Some(event(at, "stale", "The provider's list did not have it any more.")),
        Status::Arriving
        | Status::Quarantined
        | Status::Available
        | Status::Reserved
        | Status::Allocated
        | Status::Deleted
        | Status::Unknown => None,
    }));
    events.extend(seen.audit.iter().map(by_operator));
    // Most times are whole seconds: within one, the order is that of the kinds.
    events.sort_by_key(|event| (event.at_ms / 1_000, rank(event.kind), event.at_ms));
    events
}

/// What comes first of the same second. An operator's line is written before the act.
fn rank(kind: &str) -> usize {
    let order =
        ["arrived", "synced", "asked", "allocated", "operator", "ended", "deletion_failed", "deleted"];
    order.iter().position(|one| *one == kind).unwrap_or(order.len())
}

/// That a sandbox was asked for, and what became of the request, if its record says.
fn asked(lease: &Lease, request: Option<&PersistedRequest>) -> Option<Event> {
    let state = request.map(|request| format!(", {}", request.state.as_str())).unwrap_or_default();
    let text = format!("Request {} of {}{state}.", lease.request_id, lease.key.track);
    Some(event(minted(lease.request_id)?, "asked", text))
}

/// When a request id was minted: its first 48 bits (RFC 9562, version 7).
fn minted(id: RequestId) -> Option<Timestamp> {
    let (seconds, nanos) = id.as_uuid().get_timestamp()?.to_unix();
    Some(Timestamp::from_ms(seconds.saturating_mul(1_000) + u64::from(nanos) / 1_000_000))
}

const fn ended(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Returned => "Given back by its owner.",
        EndReason::Expired => "Taken back: its time and the grace after it were over.",
        EndReason::Abandoned => "Taken back: its owner was silent for three heartbeats.",
        EndReason::Released => "Released by an operator.",
        EndReason::Reported => "Reported broken by its owner.",
        EndReason::Unknown => "Ended by a newer program.",
    }
}

fn by_operator(line: &AuditLine) -> Event {
    let count = line.count.map(|count| format!(" {count}")).unwrap_or_default();
    let why = line.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let not_done = line.not_done().map(|how| format!(" ({how})")).unwrap_or_default();
    let text = format!("{}{count}{why}{not_done}", line.act.as_str().replace('_', " "));
    Event { at_ms: line.at.as_ms(), kind: "operator", text, who: Some(line.who.clone()) }
}

/// Why a track has what it has.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TrackStory {
    /// The track.
    pub track: String,
    /// The key that was looked at: the track's id unless another was asked for.
    pub idempotency_key: String,
    /// What the lease of the key says.
    pub verdict: Verdict,
    /// The same for people, with what an allocate would be answered now.
    pub text: String,
    /// The section of the runbook that says more.
    pub runbook: &'static str,
    /// When the lease began, in seconds since the epoch.
    pub allocated_at: Option<u64>,
    /// When the lease ends or ended for its owner, in seconds since the epoch.
    pub expires_at: Option<u64>,
    /// When it ended, in seconds since the epoch.
    pub ended_at: Option<u64>,
    /// The sandbox of the lease.
    #[schemars(with = "Option<PooledSandbox<'_>>")]
    pub sandbox: Option<Value>,
    /// The request that claimed it, if it has a record: only those that were answered 202 have one.
    pub request: Option<RecordedRequest>,
    /// The limits of its tenant and their use, eight at most, reached ones first; of a track whose tenant is not known, those of all
    /// tenants that are reached.
    pub limits: Vec<HeldLimit>,
}

/// A request that has a record.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecordedRequest {
    /// Its id.
    #[schemars(extend("format" = "uuid"))]
    pub request_id: String,
    /// Its state: any but `queued` is final. `unknown` is an end that only newer processes can tell.
    #[schemars(extend("enum" = ["queued", "succeeded", "failed", "expired", "cancelled", "unknown"]))]
    pub status: &'static str,
    /// When it was made, in seconds since the epoch.
    pub created_at: u64,
    /// When it becomes `expired` unless it ended before, in seconds since the epoch.
    pub deadline: u64,
}

impl From<&PersistedRequest> for RecordedRequest {
    fn from(request: &PersistedRequest) -> Self {
        Self {
            request_id: request.request_id.to_string(),
            status: request.state.as_str(),
            created_at: request.created_at.as_secs(),
            deadline: request.deadline.as_secs(),
        }
    }
}

/// What a lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is live.
    Holds,
    /// It is live and its time is over.
    Overdue,
    /// It has ended.
    Ended,
    /// There is none, or it has ended, and a request of the track waits in a line.
    Waits,
    /// There is none.
    Nothing,
    /// There is none, or it has ended; whether a request of the track waits is not known: there are more lines than a story reads.
    Unclear,
}

/// What an allocate would meet now.
struct Ahead {
    /// Sandboxes that are free, as the last census counted.
    free: Option<u64>,
    /// Those that are put aside for its tenant, as the same census counted.
    aside: u64,
    /// Since when workers take no messages.
    closed_since: Option<Timestamp>,
    /// Whether a request of the track waits; `None` if not every place was looked at.
    waits: Option<bool>,
    /// The limits of its tenant, or all that are reached.
    limits: Vec<HeldLimit>,
    /// Whether more of them may be reached.
    more_limits: bool,
}

/// A page with the place of `track`, if it waits: the lines of `tenant`, whose lease it had, are read first, then those of all.
/// If the page has no place but a `next`, not every line was read.
async fn place_of(
    store: &Store,
    (track, tenant): (&TrackId, Option<&TenantName>),
) -> Result<WaitingPage, StoreError> {
    let track_of = |message: &str| summarize(message).track;
    let mut filter =
        WaitingFilter { tenant: tenant.cloned(), track: Some(track.clone()), ..WaitingFilter::default() };
    let mut page = waiting::list(store, &filter, track_of, None, (1, PLACE_READS)).await?;
    if page.places.is_empty() && filter.tenant.take().is_some() {
        page = waiting::list(store, &filter, track_of, None, (1, PLACE_READS)).await?;
    }
    Ok(page)
}

impl Ahead {
    async fn of(
        store: &Store,
        policy: &Policy,
        (track, tenant): (&TrackId, Option<&TenantName>),
    ) -> Result<Self, StoreError> {
        let waiting = place_of(store, (track, tenant));
        let (census, closed_since, waiting) =
            tokio::try_join!(store.census.get(), store.pool.closed_since(), waiting)?;
        let free = census.as_ref().and_then(|census| census.by_status.get(&Status::Available).copied());
        let tenant = tenant.or_else(|| Some(&waiting.places.first()?.line.tenant));
        let mut aside = 0;
        if let (Some(tenant), Some(census)) = (tenant, &census) {
            let all = store.reservations.all().await?;
            let own = all.iter().filter(|one| one.is_open() && one.terms.tenant == *tenant);
            aside =
                own.filter_map(|one| census.by_reservation.get(&one.id)).map(|count| count.reserved).sum();
        }
        let (limits, more_limits) = story_limits::held(store, policy, tenant).await?;
        let waits = match (waiting.places.is_empty(), waiting.next) {
            (false, _) => Some(true),
            (true, None) => Some(false),
            (true, Some(_)) => None,
        };
        Ok(Self { free, aside, closed_since, waits, limits, more_limits })
    }

    /// The sentence for it, and the section of the runbook.
    fn told(&self, now: Timestamp) -> (String, &'static str) {
        if let Some(since) = self.closed_since {
            let for_s = now.since(since).as_secs();
            let text =
                format!("The pool is closed for {for_s} s: no worker takes a request until it is resumed.");
            return (text, "no-worker-receives");
        }
        let reached = story_limits::told(&self.limits, self.more_limits);
        let aside = match self.aside {
            0 => String::new(),
            aside => format!(", {aside} of them put aside for its tenant"),
        };
        match self.free.map(|free| free + self.aside) {
            Some(0) => {
                let text = format!(
                    "No sandbox is free: an allocate now is answered 409 NO_SANDBOXES_AVAILABLE, or waits if it may.{reached}"
                );
                (text, "pool-low")
            }
            Some(free) => {
                let text = format!(
                    "{free} sandboxes are free{aside}: an allocate now gets one, unless it names a prefix that none of them has.{reached}"
                );
                (text, if reached.is_empty() { "backlog-growing" } else { "policy" })
            }
            None => ("The pool was not counted yet.".to_owned(), "backlog-growing"),
        }
    }
}

/// The story of a track under a key.
pub async fn of_track(
    store: &Store,
    policy: &Policy,
    key: &LeaseKey,
    now: Timestamp,
) -> Result<TrackStory, StoreError> {
    let lease = store.leases.get(key).await?;
    let (sandbox, request) = match &lease {
        Some(lease) => tokio::try_join!(
            store.sandboxes.record(&lease.grant.sandbox_id),
            store.requests.get(lease.request_id)
        )?,
        None => (None, None),
    };
    let tenant = lease.as_ref().and_then(|lease| lease.tenant.as_ref());
    let ahead = Ahead::of(store, policy, (&key.track, tenant)).await?;
    let (verdict, text, runbook) = judge(lease.as_ref(), &ahead, now);
    let secs = |at: Timestamp| at.as_secs();
    Ok(TrackStory {
        track: key.track.to_string(),
        idempotency_key: key.key.to_string(),
        verdict,
        text,
        runbook,
        allocated_at: lease.as_ref().map(|lease| secs(lease.grant.allocated_at)),
        expires_at: lease.as_ref().map(|lease| secs(lease.grant.expires_at)),
        ended_at: lease.as_ref().and_then(|lease| lease.end.as_ref()).map(|end| secs(end.at)),
        sandbox: sandbox.as_ref().map(|record| shown(record, policy)),
        request: request.as_ref().map(RecordedRequest::from),
        limits: ahead.limits,
    })
}

/// What the lease says, what an allocate would be answered now, and where to read on.
fn judge(lease: Option<&Lease>, ahead: &Ahead, now: Timestamp) -> (Verdict, String, &'static str) {
    let (next, lowest) = ahead.told(now);
    let waits = "A request of this track waits in a line";
    let unclear = "Whether a request of this track waits is not known, there are too many lines: \
                   broker waiting list --track looks at all of them";
    match lease {
        None => {
            let none = "Holds nothing under this key, and held nothing of late.";
            match ahead.waits {
                Some(true) => {
                    (Verdict::Waits, format!("{waits}, and nothing is held under this key. {next}"), WAITS)
                }
                Some(false) => (Verdict::Nothing, format!("{none} {next}"), lowest),
                None => (Verdict::Unclear, format!("{none} {unclear}. {next}"), WAITS),
            }
        }
        Some(lease) => {
            let sandbox = &lease.grant.sandbox_id;
            match &lease.end {
                Some(end) => {
                    let how = match end.reason {
                        EndReason::Returned => "was given back",
                        EndReason::Expired => "expired and was taken back",
                        EndReason::Abandoned => "was abandoned by its owner and taken back",
                        EndReason::Released => "was released by an operator",
                        EndReason::Reported => "was reported broken",
                        EndReason::Unknown => "was ended by a newer program",
                    };
                    let had = format!("Had {sandbox}, which {how}.");
                    match ahead.waits {
                        Some(true) => (Verdict::Waits, format!("{waits}. {had} {next}"), WAITS),
                        Some(false) => (Verdict::Ended, format!("{had} {next}"), lowest),
                        None => (Verdict::Unclear, format!("{had} {unclear}. {next}"), WAITS),
                    }
                }
                None if lease.grant.expires_at <= now => {
                    let text = format!(
                        "Still has {sandbox}, whose time is over; expiry takes it back after the grace. {next}"
                    );
                    (Verdict::Overdue, text, lowest)
                }
                None => {
                    let text = format!("Holds {sandbox}: an allocate with this key is answered 200 with it.");
                    (Verdict::Holds, text, "backlog-growing")
                }
            }
        }
    }
}
