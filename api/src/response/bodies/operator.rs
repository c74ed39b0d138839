//! Bodies of responses to operators.

use std::collections::BTreeMap;

use broker_domain::policy::{ByStatus, Change};
use broker_domain::{
    EndReason, FlavourName, Heartbeat, JobReport, NamePrefix, ProviderAttributes, RequestId, Sandbox, Status,
    Timestamp, TrackName,
};
use broker_store::{
    AuditLine, Census, HeldPermits, PolicyPlan, Record, StoredPolicy, shown_causes, shown_counts,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::counts::{causes, counts, counts_by_flavour, counts_or_none};

/// The report of a run.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Run")]
pub(crate) struct RunBody<'a> {
    /// The job.
    job: &'a str,
    /// The number of items to work on.
    found: u64,
    /// The number of items changed.
    changed: u64,
    /// The number of items skipped: another worker was faster, or the item had changed.
    skipped: u64,
    /// The number of items that failed; the next run tries them again.
    failed: u64,
    /// The duration, in milliseconds.
    duration_ms: u64,
    /// The changes, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: &'a BTreeMap<String, u64>,
    /// The reason why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    aborted: Option<&'a str>,
    /// Why it left work to a later run.
    #[serde(skip_serializing_if = "Option::is_none")]
    postponed: Option<&'a str>,
    /// The id of the request that started it.
    #[schemars(extend("format" = "uuid"))]
    request_id: String,
    /// `failed` if it ended early.
    #[schemars(extend("enum" = ["succeeded", "failed"]))]
    status: &'static str,
}

impl<'a> RunBody<'a> {
    pub(crate) fn new(report: &'a JobReport, id: RequestId) -> Self {
        let JobReport { job, found, changed, skipped, failed, duration_ms, details, aborted, postponed } =
            report;
        Self {
            job,
            found: *found,
            changed: *changed,
            skipped: *skipped,
            failed: *failed,
            duration_ms: *duration_ms,
            details,
            aborted: aborted.as_deref(),
            postponed: postponed.as_deref(),
            request_id: id.to_string(),
            status: if aborted.is_none() { "succeeded" } else { "failed" },
        }
    }

    /// `succeeded` or `failed`.
    pub(crate) const fn status(&self) -> &'static str {
        self.status
    }
}

/// A run of a job that has not ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QueuedRun<'a> {
    /// The job.
    pub(crate) job: &'a str,
    /// The id of the request that started it.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// Its state.
    #[schemars(schema_with = "super::queued")]
    pub(crate) status: &'static str,
}

/// The number of sandboxes in each state.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Stats {
    #[serde(flatten)]
    #[schemars(schema_with = "counts")]
    counts: BTreeMap<&'static str, u64>,
    /// The same of each flavour of the policy; `any` is what has none. Missing without a policy.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "counts_by_flavour")]
    flavours: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// What is in quarantine, by what put it there.
    #[schemars(schema_with = "causes")]
    quarantined_by_cause: BTreeMap<&'static str, u64>,
    /// When they were counted, in seconds since the epoch.
    as_of: u64,
}

impl Stats {
    pub(crate) fn new(census: &Census) -> Self {
        let of_flavour = |(name, counts): (&String, &ByStatus)| (name.clone(), shown_counts(counts));
        Self {
            counts: shown_counts(&census.by_status),
            flavours: census.by_flavour.iter().map(of_flavour).collect(),
            quarantined_by_cause: shown_causes(&census.by_cause),
            as_of: census.as_of.as_secs(),
        }
    }
}

/// The flavours.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Flavours<'a> {
    /// Those of the policy, by name, and at last `any`: the sandboxes that have none.
    pub(crate) flavours: Vec<Flavour<'a>>,
    /// When they were counted, in seconds since the epoch.
    pub(crate) as_of: u64,
}

/// A flavour and its sandboxes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Flavour<'a> {
    /// Its name.
    flavour: &'a str,
    /// The names of its sandboxes begin so; null for `any`.
    prefix: Option<&'a str>,
    /// Whether it is meant by requests that name neither a flavour nor a prefix.
    default: bool,
    /// Its sandboxes by state, and their total; null if it is newer than the last census.
    #[schemars(schema_with = "counts_or_none")]
    counts: Option<BTreeMap<&'static str, u64>>,
}

impl<'a> Flavour<'a> {
    pub(crate) fn new(
        flavour: &'a str,
        prefix: Option<&'a NamePrefix>,
        default: bool,
        counts: Option<&ByStatus>,
    ) -> Self {
        Self { flavour, prefix: prefix.map(NamePrefix::as_str), default, counts: counts.map(shown_counts) }
    }
}

/// What became of a policy that was put.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyReport<'a> {
    /// The digest of the policy that stands; its ETag, without the quotes.
    digest: &'a str,
    /// Raised by every change; 0 while no policy was ever applied.
    version: u64,
    /// Whether this request changed it: not a dry run, and not the same policy again.
    applied: bool,
    /// What differs, by key.
    changes: Vec<PolicyChange<'a>>,
    /// What tenants hold under limits that the policy does not have any more, such as of a prefix that was changed: no
    /// other limit counts it.
    uncounted: Vec<UncountedLeases<'a>>,
}

/// Leases of a tenant that no limit counts any more.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UncountedLeases<'a> {
    /// The tenant.
    tenant: &'a str,
    /// The prefix that its limit was about.
    prefix: &'a str,
    /// How many it holds.
    held: u64,
}

/// What differs between two policies under one key.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyChange<'a> {
    /// The key, such as `flavour.small.refill.min`.
    key: &'a str,
    /// What stood there, as TOML.
    before: Option<&'a str>,
    /// What stands or would stand there, as TOML.
    after: Option<&'a str>,
}

impl<'a> PolicyReport<'a> {
    pub(crate) fn new(plan: &'a PolicyPlan, stands: &'a StoredPolicy, applied: bool) -> Self {
        let told = |Change { key, before, after }: &'a Change| PolicyChange {
            key,
            before: before.as_deref(),
            after: after.as_deref(),
        };
        let held = |HeldPermits { limit, held }: &'a HeldPermits| UncountedLeases {
            tenant: limit.tenant.as_str(),
            prefix: limit.prefix.as_str(),
            held: *held,
        };
        let changes = plan.changes.iter().map(told).collect();
        let uncounted = plan.uncounted.iter().map(held).collect();
        Self { digest: &stands.digest, version: stands.version, applied, changes, uncounted }
    }
}

/// A page of the audit.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AuditPage<'a> {
    /// The day, in UTC.
    pub(crate) date: String,
    /// The newest first.
    pub(crate) lines: Vec<AuditEntry<'a>>,
    /// The `cursor` of the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// An act of an operator.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AuditEntry<'a> {
    /// When, in milliseconds since the epoch.
    at_ms: u64,
    /// The name of the token, or what `--by` said.
    who: &'a str,
    /// What.
    act: &'static str,
    /// On what: a job, a sandbox, a selection of dead letters.
    target: &'a str,
    /// The reason, if one was given.
    why: Option<&'a str>,
    /// A count or an amount, if there is one.
    count: Option<u64>,
    /// The result as JSON: the counts of a long act, or the reason for which it was not done under `refused`, `unchanged`
    /// (it was so already) or `failed` (an error: whether it was done is not known). Null while it runs, and of others.
    ended: Option<&'a str>,
}

impl<'a> From<&'a AuditLine> for AuditEntry<'a> {
    fn from(line: &'a AuditLine) -> Self {
        let AuditLine { at, who, act, target, why, count, ended, .. } = line;
        Self {
            at_ms: at.as_ms(),
            who,
            act: act.as_str(),
            target,
            why: why.as_deref(),
            count: *count,
            ended: ended.as_deref(),
        }
    }
}

/// A page of the pool.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Page")]
pub(crate) struct PoolPage<'a> {
    /// Unordered; may be fewer than `limit` before the last page.
    pub(crate) sandboxes: Vec<PooledSandbox<'a>>,
    /// The `cursor` of the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// A sandbox as an operator sees it, over HTTP and in the CLI.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PooledSandbox<'a> {
    /// The provider's attributes that the broker keeps (`BROKER_PROVIDER_ATTRIBUTES`).
    #[serde(flatten)]
    #[schemars(with = "Map<String, Value>")]
    attributes: &'a ProviderAttributes,
    /// The broker's id of the sandbox.
    sandbox_id: &'a str,
    /// Its name at the provider.
    name: &'a str,
    /// The provider's own id of it.
    external_id: &'a str,
    /// The flavour of the policy whose prefix begins its name; null if it has none, and in stories.
    flavour: Option<&'a str>,
    /// Its state.
    #[schemars(schema_with = "super::any_status")]
    status: Status,
    /// Raised by every change.
    version: u64,
    /// The track that holds or held it.
    track: Option<&'a str>,
    /// The key of that allocation.
    idempotency_key: Option<&'a str>,
    /// The lab of that allocation.
    track_name: Option<&'a str>,
    /// The id of that allocation.
    #[schemars(extend("format" = "uuid"))]
    allocation_id: Option<String>,
    /// When it was allocated, in seconds since the epoch.
    allocated_at: Option<u64>,
    /// When the allocation expires or expired, in seconds since the epoch.
    expires_at: Option<u64>,
    /// How often its owner says that it lives, in seconds, if it does.
    heartbeat_s: Option<u16>,
    /// When its deletion was requested, in seconds since the epoch.
    deletion_requested_at: Option<u64>,
    /// The reason why its lease ended.
    #[schemars(schema_with = "end_reason")]
    deletion_reason: Option<EndReason>,
    /// Failed attempts to delete it.
    deletion_attempts: u64,
    /// The last error of its deletion.
    deletion_error: Option<&'a str>,
    /// Its due time, in seconds since the epoch.
    due_at: Option<u64>,
    /// When it became a tombstone, in seconds since the epoch.
    deleted_at: Option<u64>,
    /// When it entered the pool, in seconds since the epoch.
    created_at: u64,
    /// When it last changed, in seconds since the epoch.
    updated_at: u64,
    /// When sync last wrote it, in seconds since the epoch.
    last_synced: Option<u64>,
    /// When it went into quarantine, in seconds since the epoch; kept after it was retired.
    quarantined_at: Option<u64>,
    /// What put it there: operator, gate, deletion or report.
    quarantine_cause: Option<&'static str>,
    /// Who put it there.
    quarantined_by: Option<&'a str>,
    /// Why.
    quarantine_reason: Option<&'a str>,
    /// The reservation that it is put aside for, or was claimed from.
    #[schemars(extend("format" = "uuid"))]
    reserved_for: Option<String>,
}

impl<'a> PooledSandbox<'a> {
    /// From its record, and its flavour.
    pub fn new(record: &'a Record, flavour: Option<&'a FlavourName>) -> Self {
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
            reserved_for,
            gate: _,
        } = record;
        let quarantine = quarantine.as_ref();
        let Sandbox {
            id,
            name,
            external_id,
            attributes,
            status,
            version,
            allocation,
            term,
            deletion_requested_at,
            end_reason,
        } = sandbox;
        let allocation = allocation.as_ref();
        let secs = |at: &Option<Timestamp>| at.map(Timestamp::as_secs);
        Self {
            attributes,
            sandbox_id: id.as_str(),
            name: name.as_str(),
            external_id: external_id.as_str(),
            flavour: flavour.map(FlavourName::as_str),
            status: *status,
            version: *version,
            track: allocation.map(|a| a.lease_key.track.as_str()),
            idempotency_key: allocation.map(|a| a.lease_key.key.as_str()),
            track_name: allocation.and_then(|a| a.track_name.as_ref()).map(TrackName::as_str),
            allocation_id: allocation.map(|a| a.id.to_string()),
            allocated_at: allocation.map(|a| a.allocated_at.as_secs()),
            expires_at: allocation.map(|a| a.expires_at.as_secs()),
            heartbeat_s: term.heartbeat.map(Heartbeat::seconds),
            deletion_requested_at: secs(deletion_requested_at),
            deletion_reason: *end_reason,
            deletion_attempts: *attempts,
            deletion_error: deletion_error.as_deref(),
            due_at: secs(due),
            deleted_at: secs(deleted_at),
            created_at: created_at.as_secs(),
            updated_at: updated_at.as_secs(),
            last_synced: secs(last_synced),
            quarantined_at: quarantine.map(|why| why.at.as_secs()),
            quarantine_cause: quarantine.map(|why| why.cause.as_str()),
            quarantined_by: quarantine.map(|why| why.by.as_str()),
            quarantine_reason: quarantine.map(|why| why.reason.as_str()),
            reserved_for: reserved_for.map(|id| id.to_string()),
        }
    }
}

fn end_reason(_: &mut SchemaGenerator) -> Schema {
    let reasons = [
        EndReason::Returned,
        EndReason::Expired,
        EndReason::Abandoned,
        EndReason::Released,
        EndReason::Reported,
        EndReason::Unknown,
    ];
    let reasons = reasons.map(|reason| json!(reason));
    let or_none = reasons.into_iter().chain([Value::Null]).collect::<Vec<_>>();
    json_schema!({ "type": ["string", "null"], "enum": or_none })
}
