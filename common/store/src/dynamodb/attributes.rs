//! Conversion between items and domain values. Times are whole seconds, unless the name ends in `_ms`.

use std::collections::HashMap;
use std::convert::Infallible;

use aws_sdk_dynamodb::types::AttributeValue;

use super::keys::{self, PK};
use super::{n, s};
use crate::{Candidate, StoreError};
use broker_domain::waiting::Line;
use broker_domain::{
    Allocation, AllocationId, EndReason, ExternalId, Fingerprint, Grant, Heartbeat, IdempotencyKey,
    LabDuration, Lease, LeaseEnd, LeaseKey, Outcome, Permit, PersistedRequest, ProviderAttributes, RequestId,
    RequestState, Sandbox, SandboxId, SandboxName, Status, Subject, TenantName, Term, Timestamp, TrackId,
    TrackName,
};

/// An item as the SDK returns it.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) const SANDBOX_ID: &str = "sandbox_id";
pub(super) const NAME: &str = "name";
pub(super) const EXTERNAL_ID: &str = "external_id";
pub(super) const PROVIDER_ATTRIBUTES: &str = "provider_attributes";
pub(super) const STATUS: &str = "status";
pub(super) const VERSION: &str = "version";
pub(super) const TRACK: &str = "allocated_to_track";
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency_key";
pub(super) const ALLOCATION_ID: &str = "allocation_id";
pub(super) const TRACK_NAME: &str = "track_name";
pub(super) const LAB_DURATION_HOURS: &str = "lab_duration_hours";
pub(super) const HEARTBEAT_S: &str = "heartbeat_s";
pub(super) const TENANT: &str = "tenant";
pub(super) const PERMIT: &str = "permit";
pub(super) const ALLOCATED_AT: &str = "allocated_at";
pub(super) const EXPIRES_AT: &str = "expires_at";
pub(super) const DELETION_REQUESTED_AT: &str = "deletion_requested_at";
pub(super) const DELETION_REASON: &str = "deletion_reason";
pub(super) const CREATED_AT: &str = "created_at";
pub(super) const UPDATED_AT: &str = "updated_at";
pub(super) const LAST_SYNCED: &str = "last_synced";
pub(super) const DELETION_RETRY_COUNT: &str = "deletion_retry_count";
pub(super) const DELETION_ERROR: &str = "deletion_error";
pub(super) const QUARANTINED_AT: &str = "quarantined_at";
pub(super) const QUARANTINE_CAUSE: &str = "quarantine_cause";
pub(super) const QUARANTINED_BY: &str = "quarantined_by";
pub(super) const QUARANTINE_REASON: &str = "quarantine_reason";
pub(super) const RECENT: &str = "recent";
pub(super) const GATE_ATTEMPTS: &str = "gate_attempts";
pub(super) const GATE_CHECK: &str = "gate_check";
pub(super) const DELETED_AT: &str = "deleted_at";
pub(super) const BY_FLAVOUR: &str = "by_flavour";
pub(super) const BY_CAUSE: &str = "quarantined_by_cause";
pub(super) const POLICY_TEXT: &str = "policy_text";
pub(super) const POLICY_DIGEST: &str = "policy_digest";
pub(super) const APPLIED_AT: &str = "applied_at";
pub(super) const APPLIED_BY: &str = "applied_by";
pub(super) const STATE_SHARDS: &str = "state_shards";
pub(super) const RESHARDING_TO: &str = "resharding_to";
pub(super) const PAUSED_BY: &str = "paused_by";
pub(super) const QUEUE_PREFIX: &str = "queue_prefix";
pub(super) const RETIRED_AT: &str = "retired_at";
pub(super) const ACCOUNTS_RECORDED_AT: &str = "accounts_recorded_at";
pub(super) const ACCOUNT_SPELLING: &str = "account_spelling";
pub(super) const SEEDED: &str = "seeded";
pub(super) const REQUEST_ID: &str = "request_id";
pub(super) const FINGERPRINT: &str = "fingerprint";
pub(super) const ENDED_AT: &str = "ended_at";
pub(super) const END_REASON: &str = "end_reason";
pub(super) const FENCE_MS: &str = "fence_ms";
pub(super) const TTL: &str = "ttl";
pub(super) const STATE: &str = "state";
pub(super) const OUTCOME: &str = "outcome";
pub(super) const DEADLINE_MS: &str = "deadline_ms";
pub(super) const QUEUED: &str = "queued";
pub(super) const ASYNC: &str = "async";
pub(super) const MESSAGE: &str = "message";
pub(super) const NEXT_RUN_AT_MS: &str = "next_run_at_ms";
pub(super) const TAKEN_UNTIL_MS: &str = "taken_until_ms";
pub(super) const TROUBLE_MS: &str = "trouble_ms";
pub(super) const TROUBLE: &str = "trouble";
pub(super) const PROVIDER_AWAY_MS: &str = "provider_away_ms";
pub(super) const PROVIDER_AWAY: &str = "provider_away";
pub(super) const HOOKS_AWAY: &str = "hooks_away";
pub(super) const PAUSED_AT: &str = "paused_at";
pub(super) const RAN_FOR_MS: &str = "ran_for_ms";
pub(super) const LISTED_AT_MS: &str = "listed_at_ms";
pub(super) const LIST_HIDES: &str = "list_hides";
pub(super) const COMPARED_AT_MS: &str = "compared_at_ms";
pub(super) const COUNTED_MISSING_AT_MS: &str = "counted_missing_at_ms";
pub(super) const BUCKET_US: &str = "bucket_us";
pub(super) const UNANSWERED: &str = "unanswered";
pub(super) const OVERDUE: &str = "overdue";
pub(super) const PROBES: &str = "probes";
pub(super) const PROBE_AT_MS: &str = "probe_at_ms";
pub(super) const RESTS_UNTIL_MS: &str = "rests_until_ms";
pub(super) const BUSY_UNTIL_MS: &str = "busy_until_ms";
pub(super) const PAUSED_AT_MS: &str = "paused_at_ms";
pub(super) const MADE_AT_MS: &str = "made_at_ms";
pub(super) const DUE_AT_MS: &str = "due_at_ms";
pub(super) const TAKEN_AT_MS: &str = "taken_at_ms";
pub(super) const NEXT_SLOT_MS: &str = "next_slot_ms";
pub(super) const LETTERS: &str = "dead_letters";
pub(super) const AS_OF_MS: &str = "as_of_ms";
pub(super) const SAID: &str = "said";
pub(super) const UNSEEN: &str = "unseen";
pub(super) const ROLE: &str = "process_role";
pub(super) const HEARTBEAT_MS: &str = "heartbeat_ms";
pub(super) const JOB: &str = "job_name";
pub(super) const REPORT: &str = "report";
pub(super) const REQUESTS_PER_S: &str = "requests_per_s";
pub(super) const GRANTED: &str = "granted";
pub(super) const OLDEST_REQUESTS_MS: &str = "oldest_requests_ms";
pub(super) const RECEIVES: &str = "receives";
pub(super) const REQUESTS_EMPTY_MS: &str = "requests_empty_ms";
pub(super) const MAINTENANCE_EMPTY_MS: &str = "maintenance_empty_ms";
pub(super) const OLDEST_MAINTENANCE_MS: &str = "oldest_maintenance_ms";
pub(super) const UNTIL_MS: &str = "until_ms";
pub(super) const MARKS: &str = "marks";
pub(super) const PARKED: &str = "parked";
pub(super) const AT_MS: &str = "at_ms";
pub(super) const AUDIT_ID: &str = "audit_id";
pub(super) const WHO: &str = "who";
pub(super) const ACT: &str = "act";
pub(super) const TARGET: &str = "target";
pub(super) const WHY: &str = "why";
pub(super) const HOW_MANY: &str = "how_many";
pub(super) const ACT_ENDED: &str = "act_ended";
pub(super) const TABLE_NAME: &str = "table_name";
pub(super) const TABLE_ID: &str = "table_id";
pub(super) const RESERVED_FOR: &str = "reserved_for";
pub(super) const RESERVED_PREFIX: &str = "reserved_prefix";
pub(super) const RESERVED_COUNT: &str = "reserved_count";
pub(super) const HELD: &str = "held";
pub(super) const HELD_AT_MS: &str = "held_at_ms";
pub(super) const FROM_MS: &str = "from_ms";
pub(super) const LEAD_MS: &str = "lead_ms";
pub(super) const NO_SHOW_MS: &str = "no_show_ms";
pub(super) const MADE_BY: &str = "made_by";
pub(super) const CLOSED_AT_MS: &str = "closed_at_ms";
pub(super) const CLOSED_WHY: &str = "closed_why";
pub(super) const CLEARED: &str = "cleared";
pub(super) const READY_MS: &str = "ready_ms";
pub(super) const BY_RESERVATION: &str = "by_reservation";
pub(super) const RECONCILING_SINCE: &str = "reconciling_since";
/// Attributes that are set and removed by expressions only.
#[cfg(test)]
pub(super) const IN_EXPRESSIONS_ONLY: [&str; 5] =
    ["held_by", "died", "paused_by", "replayed_by", "trouble_of_ms"];

/// Reads attributes of one item and names the item when one is wrong.
pub(super) struct Reader<'a>(pub(super) &'a Item);

impl<'a> Reader<'a> {
    pub(super) fn malformed(&self, attribute: &'static str) -> StoreError {
        let item = self.0.get(PK).and_then(|pk| pk.as_s().ok()).cloned().unwrap_or_default();
        StoreError::Malformed { item, attribute }
    }

    /// A string attribute as `T`; absent is `None`, invalid an error.
    pub(super) fn optional<T, E>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<Option<T>, StoreError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let text = value.as_s().map_err(|_| self.malformed(name))?;
        parse(text).map(Some).map_err(|_| self.malformed(name))
    }

    pub(super) fn text<T, E>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        self.optional(name, parse)?.ok_or_else(|| self.malformed(name))
    }

    pub(super) fn optional_number(&self, name: &'static str) -> Result<Option<u64>, StoreError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let number = value.as_n().ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| self.malformed(name))
    }

    pub(super) fn number(&self, name: &'static str) -> Result<u64, StoreError> {
        self.optional_number(name)?.ok_or_else(|| self.malformed(name))
    }

    pub(super) fn optional_time(&self, name: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.optional_number(name)?.map(Timestamp::from_secs))
    }

    pub(super) fn time(&self, name: &'static str) -> Result<Timestamp, StoreError> {
        self.number(name).map(Timestamp::from_secs)
    }

    fn track_name(&self) -> Result<Option<TrackName>, StoreError> {
        self.optional(TRACK_NAME, TrackName::new)
    }

    pub(super) fn lease_key(&self) -> Result<LeaseKey, StoreError> {
        let track = self.text(TRACK, TrackId::new)?;
        let key = self
            .optional(IDEMPOTENCY_KEY, IdempotencyKey::new)?
            .unwrap_or_else(|| IdempotencyKey::from(&track));
        Ok(LeaseKey { track, key })
    }

    /// For how long the lease is wanted. What another tool wrote there is no reason not to read the rest.
    fn term(&self) -> Term {
        let number = |name| self.optional_number(name).ok().flatten();
        Term {
            hours: number(LAB_DURATION_HOURS).and_then(|hours| LabDuration::new(hours).ok()),
            heartbeat: number(HEARTBEAT_S).and_then(|seconds| Heartbeat::new(seconds).ok()),
        }
    }

    fn permit(&self) -> Result<Option<Permit>, StoreError> {
        self.optional(PERMIT, |text| Permit::parse(text).ok_or(()))
    }

    fn allocation(&self) -> Result<Option<Allocation>, StoreError> {
        let Some(id) = self.optional(ALLOCATION_ID, AllocationId::parse)? else { return Ok(None) };
        Ok(Some(Allocation {
            id,
            lease_key: self.lease_key()?,
            track_name: self.track_name()?,
            allocated_at: self.time(ALLOCATED_AT)?,
            expires_at: self.time(EXPIRES_AT)?,
            permit: self.permit()?,
        }))
    }
}

fn end_reason(text: &str) -> Result<EndReason, Infallible> {
    Ok(EndReason::from_stored(text))
}

pub(super) fn read_provider_attributes(read: &Reader<'_>) -> Result<ProviderAttributes, StoreError> {
    Ok(read.optional(PROVIDER_ATTRIBUTES, serde_json::from_str)?.unwrap_or_default())
}

pub(super) fn read_sandbox(item: &Item) -> Result<Sandbox, StoreError> {
    let read = Reader(item);
    Ok(Sandbox {
        id: read.text(SANDBOX_ID, SandboxId::new)?,
        name: read.text(NAME, SandboxName::new)?,
        external_id: read.text(EXTERNAL_ID, ExternalId::new)?,
        attributes: read_provider_attributes(&read)?,
        status: read.text(STATUS, |text| Ok::<_, Infallible>(Status::from_stored(text)))?,
        version: read.number(VERSION)?,
        allocation: read.allocation()?,
        term: read.term(),
        deletion_requested_at: read.optional_time(DELETION_REQUESTED_AT)?,
        end_reason: read.optional(DELETION_REASON, end_reason)?,
    })
}

pub(super) fn read_candidate(item: &Item) -> Result<Candidate, StoreError> {
    let read = Reader(item);
    Ok(Candidate {
        sandbox_id: read.text(SANDBOX_ID, SandboxId::new)?,
        name: read.text(NAME, SandboxName::new)?,
        external_id: read.text(EXTERNAL_ID, ExternalId::new)?,
        // The index does not hold them.
        attributes: None,
        version: read.number(VERSION)?,
    })
}

pub(super) fn read_lease(item: &Item) -> Result<Lease, StoreError> {
    let read = Reader(item);
    let end = match read.optional_time(ENDED_AT)? {
        Some(at) => Some(LeaseEnd {
            at,
            reason: read.text(END_REASON, end_reason)?,
            fence: Timestamp::from_ms(read.number(FENCE_MS)?),
        }),
        None => None,
    };
    Ok(Lease {
        key: read.lease_key()?,
        request_id: read.text(REQUEST_ID, RequestId::parse)?,
        allocation_id: read.text(ALLOCATION_ID, AllocationId::parse)?,
        fingerprint: read.text(FINGERPRINT, |text| Ok::<_, ()>(Fingerprint::from_stored(text)))?,
        grant: Grant {
            sandbox_id: read.text(SANDBOX_ID, SandboxId::new)?,
            name: read.text(NAME, SandboxName::new)?,
            external_id: read.text(EXTERNAL_ID, ExternalId::new)?,
            track_name: read.track_name()?,
            allocated_at: read.time(ALLOCATED_AT)?,
            expires_at: read.time(EXPIRES_AT)?,
            attributes: read_provider_attributes(&read)?,
        },
        term: read.term(),
        tenant: read.optional(TENANT, TenantName::new)?,
        permit: read.permit()?,
        end,
    })
}

/// A live lease. It has no ttl: only an ended one may be forgotten.
pub(super) fn write_live_lease(lease: &Lease) -> Item {
    let mut item = keys::lease(&lease.key).into_map();
    let grant = &lease.grant;
    item.extend(
        [
            (TRACK, s(lease.key.track.as_str())),
            (IDEMPOTENCY_KEY, s(lease.key.key.as_str())),
            (REQUEST_ID, s(lease.request_id.to_string())),
            (ALLOCATION_ID, s(lease.allocation_id.to_string())),
            (FINGERPRINT, s(lease.fingerprint.as_str())),
            (SANDBOX_ID, s(grant.sandbox_id.as_str())),
            (NAME, s(grant.name.as_str())),
            (EXTERNAL_ID, s(grant.external_id.as_str())),
            (ALLOCATED_AT, n(grant.allocated_at.as_secs())),
            (EXPIRES_AT, n(grant.expires_at.as_secs())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(track_name) = &grant.track_name {
        item.insert(TRACK_NAME.to_owned(), s(track_name.as_str()));
    }
    if !grant.attributes.is_empty() {
        item.insert(PROVIDER_ATTRIBUTES.to_owned(), s(grant.attributes.to_json()));
    }
    if let Some(hours) = lease.term.hours {
        item.insert(LAB_DURATION_HOURS.to_owned(), n(hours.hours()));
    }
    if let Some(heartbeat) = lease.term.heartbeat {
        item.insert(HEARTBEAT_S.to_owned(), n(heartbeat.seconds()));
    }
    if let Some(tenant) = &lease.tenant {
        item.insert(TENANT.to_owned(), s(tenant.as_str()));
    }
    if let Some(permit) = &lease.permit {
        item.insert(PERMIT.to_owned(), s(permit.to_string()));
    }
    item
}

/// An outcome as it is stored: JSON, as in a reply.
pub(super) fn write_outcome(outcome: &Outcome) -> AttributeValue {
    s(serde_json::to_string(outcome).unwrap_or_default())
}

pub(super) fn read_request(item: &Item) -> Result<PersistedRequest, StoreError> {
    let read = Reader(item);
    let outcome = read.optional(OUTCOME, serde_json::from_str::<Outcome>)?;
    let track = read.text(TRACK, TrackId::new)?;
    let subject = match read.optional(SANDBOX_ID, SandboxId::new)? {
        Some(sandbox_id) => Subject::Return(sandbox_id),
        None => Subject::Allocate(LeaseKey {
            track: track.clone(),
            key: read.text(IDEMPOTENCY_KEY, IdempotencyKey::new)?,
        }),
    };
    Ok(PersistedRequest {
        request_id: read.text(REQUEST_ID, RequestId::parse)?,
        track,
        subject,
        asynchronous: item.get(ASYNC).is_some_and(|flag| flag.as_bool() == Ok(&true)),
        message: read.optional(MESSAGE, |text| Ok::<_, ()>(text.to_owned()))?,
        state: outcome.map_or(RequestState::Queued, RequestState::Ended),
        parked: read.optional(PARKED, |text| Line::parse(text).ok_or(()))?,
        created_at: read.time(CREATED_AT)?,
        deadline: Timestamp::from_ms(read.number(DEADLINE_MS)?),
    })
}

pub(super) fn write_request(record: &PersistedRequest, ttl: Timestamp) -> Item {
    let mut item = keys::request(record.request_id).into_map();
    let mut set = |name: &str, value| {
        item.insert(name.to_owned(), value);
    };
    set(REQUEST_ID, s(record.request_id.to_string()));
    set(TRACK, s(record.track.as_str()));
    match &record.subject {
        Subject::Allocate(lease_key) => set(IDEMPOTENCY_KEY, s(lease_key.key.as_str())),
        Subject::Return(sandbox_id) => set(SANDBOX_ID, s(sandbox_id.as_str())),
    }
    set(STATE, s(record.state.as_str()));
    set(ASYNC, AttributeValue::Bool(record.asynchronous));
    match (&record.state, &record.message) {
        (RequestState::Ended(outcome), _) => set(OUTCOME, write_outcome(outcome)),
        (RequestState::Queued, Some(message)) => set(MESSAGE, s(message)),
        (RequestState::Queued, None) => {}
    }
    if let Some(line) = &record.parked {
        set(PARKED, s(line.to_string()));
    }
    set(CREATED_AT, n(record.created_at.as_secs()));
    set(DEADLINE_MS, n(record.deadline.as_ms()));
    set(TTL, n(ttl.as_secs()));
    item
}
