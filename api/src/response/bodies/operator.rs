//! The bodies of answers to operators.

use std::collections::BTreeMap;

use broker_domain::{EndReason, JobReport, RequestId, Sandbox, Status, Timestamp, TrackName};
use broker_store::{Census, Record};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What a run of a job did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Run<'a> {
    /// The job.
    job: &'a str,
    /// What it found to look at.
    found: u64,
    /// What it changed.
    changed: u64,
    /// What it left alone: somebody else was faster, or it was not as it seemed.
    skipped: u64,
    /// What it could not do; the next run tries again.
    failed: u64,
    /// How long it took, in milliseconds.
    duration_ms: u64,
    /// What it changed, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: &'a BTreeMap<String, u64>,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    aborted: Option<&'a str>,
    /// The id of the request that asked for it.
    #[schemars(extend("format" = "uuid"))]
    request_id: String,
    /// `failed` if it ended early.
    #[schemars(extend("enum" = ["succeeded", "failed"]))]
    status: &'static str,
}

impl<'a> Run<'a> {
    pub(crate) fn new(report: &'a JobReport, id: RequestId) -> Self {
        let JobReport { job, found, changed, skipped, failed, duration_ms, details, aborted } = report;
        Self {
            job,
            found: *found,
            changed: *changed,
            skipped: *skipped,
            failed: *failed,
            duration_ms: *duration_ms,
            details,
            aborted: aborted.as_deref(),
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
    /// The id of the request that asked for it.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// Where it stands.
    #[schemars(schema_with = "super::queued")]
    pub(crate) status: &'static str,
}

/// How many sandboxes there are in each state.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Stats {
    #[serde(flatten)]
    #[schemars(schema_with = "counts")]
    counts: BTreeMap<&'static str, u64>,
    /// When they were counted, in seconds since the epoch.
    as_of: u64,
}

impl Stats {
    pub(crate) fn new(census: &Census) -> Self {
        Self { counts: census.shown(), as_of: census.as_of.as_secs() }
    }
}

/// A page of the pool.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Page<'a> {
    /// In no order that means anything; fewer than `limit` also where the pool goes on.
    pub(crate) sandboxes: Vec<PooledSandbox<'a>>,
    /// What to send as `cursor` for the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// A sandbox as an operator sees it, over HTTP and in the command.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PooledSandbox<'a> {
    /// The broker's id of it.
    sandbox_id: &'a str,
    /// Its name at the provider.
    name: &'a str,
    /// The provider's own id of it.
    external_id: &'a str,
    /// Where it stands.
    #[schemars(schema_with = "super::any_status")]
    status: Status,
    /// Goes up with every change.
    version: u64,
    /// Who holds or held it.
    track: Option<&'a str>,
    /// Under which key.
    idempotency_key: Option<&'a str>,
    /// For which lab.
    track_name: Option<&'a str>,
    /// Which allocation that is or was.
    #[schemars(extend("format" = "uuid"))]
    allocation_id: Option<String>,
    /// Since when, in seconds since the epoch.
    allocated_at: Option<u64>,
    /// Until when, in seconds since the epoch.
    expires_at: Option<u64>,
    /// When it was given or taken back, in seconds since the epoch.
    deletion_requested_at: Option<u64>,
    /// Why it came back.
    #[schemars(schema_with = "end_reason")]
    deletion_reason: Option<EndReason>,
    /// How often its deletion failed.
    deletion_attempts: u64,
    /// Why it failed last.
    deletion_error: Option<&'a str>,
    /// When a job asks for it next, in seconds since the epoch.
    due_at: Option<u64>,
    /// When it became a tombstone, in seconds since the epoch.
    deleted_at: Option<u64>,
    /// When it entered the pool, in seconds since the epoch.
    created_at: u64,
    /// When it changed last, in seconds since the epoch.
    updated_at: u64,
    /// When sync wrote it last, in seconds since the epoch.
    last_synced: Option<u64>,
}

impl<'a> PooledSandbox<'a> {
    /// What the table knows of it.
    pub fn new(record: &'a Record) -> Self {
        let Record {
            sandbox,
            due,
            attempts,
            deletion_error,
            deleted_at,
            created_at,
            updated_at,
            last_synced,
        } = record;
        let Sandbox { id, name, external_id, status, version, allocation, deletion_requested_at, end_reason } =
            sandbox;
        let allocation = allocation.as_ref();
        let secs = |at: &Option<Timestamp>| at.map(Timestamp::as_secs);
        Self {
            sandbox_id: id.as_str(),
            name: name.as_str(),
            external_id: external_id.as_str(),
            status: *status,
            version: *version,
            track: allocation.map(|a| a.lease_key.track.as_str()),
            idempotency_key: allocation.map(|a| a.lease_key.key.as_str()),
            track_name: allocation.and_then(|a| a.track_name.as_ref()).map(TrackName::as_str),
            allocation_id: allocation.map(|a| a.id.to_string()),
            allocated_at: allocation.map(|a| a.allocated_at.as_secs()),
            expires_at: allocation.map(|a| a.expires_at.as_secs()),
            deletion_requested_at: secs(deletion_requested_at),
            deletion_reason: *end_reason,
            deletion_attempts: *attempts,
            deletion_error: deletion_error.as_deref(),
            due_at: secs(due),
            deleted_at: secs(deleted_at),
            created_at: created_at.as_secs(),
            updated_at: updated_at.as_secs(),
            last_synced: secs(last_synced),
        }
    }
}

fn end_reason(_: &mut SchemaGenerator) -> Schema {
    let reasons = [EndReason::Returned, EndReason::Expired, EndReason::Released].map(|reason| json!(reason));
    let or_none = reasons.into_iter().chain([Value::Null]).collect::<Vec<_>>();
    json_schema!({ "type": ["string", "null"], "enum": or_none })
}

fn counts(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = Status::ALL.map(Status::as_str).into_iter().chain(["total"]).collect();
    let count = json!({ "type": "integer", "minimum": 0 });
    let properties: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), count.clone())).collect();
    json_schema!({ "type": "object", "properties": properties, "required": names })
}
