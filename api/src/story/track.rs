//! Stories of tracks: what the lease of a key says, and what an allocate would be answered now.

use broker_domain::policy::Policy;
use broker_domain::{EndReason, Lease, LeaseKey, PersistedRequest, Status, TenantName, Timestamp, TrackId};
use broker_messages::summarize;
use broker_store::waiting::{self, WaitingFilter, WaitingPage};
use broker_store::{Store, StoreError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::limits::{self, HeldLimit};
use super::shown;
use crate::response::bodies::PooledSandbox;

/// How many reads of places are made for a track that may wait.
const PLACE_READS: usize = 8;
/// The section of the runbook for who waits.
const WAITS: &str = "waiting";

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
        let (limits, more_limits) = limits::held(store, policy, tenant).await?;
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
        let reached = limits::told(&self.limits, self.more_limits);
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
