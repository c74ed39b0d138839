//! Stories for operators: everything that is known of one sandbox in the order of time, and why a track has what it has. The
//! same for `/v1/admin`, the console, `broker sandbox history` and `broker track`.
//!
//! Invariant: a story costs a bounded number of reads: of a sandbox its record, its last lease, that lease's request, and the
//! audit of eight days, a megabyte of each at most; of a track its lease, that lease's sandbox and request, the census, whether
//! the pool is closed, the list of the lines, at most eight reads of places in the lines of its lease's tenant and eight in those of
//! all, the reservations, and the permits of its tenant's limits, or of at most 100 of all. What such a bound leaves out is not
//! told as not there.

mod limits;
mod track;

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{EndReason, Lease, LeaseKey, PersistedRequest, RequestId, SandboxId, Status, Timestamp};
use broker_store::{AuditLine, Record, Store, StoreError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::response::bodies::PooledSandbox;
pub use limits::HeldLimit;
pub use track::{RecordedRequest, TrackStory, Verdict, of_track};

/// How many days of the audit are read, today included.
const AUDIT_DAYS: u32 = 8;
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
