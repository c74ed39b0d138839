//! Bodies of responses: one type for the JSON and its schema in the OpenAPI document.
//!
//! Names are part of the contract. Times are seconds since the epoch. The mapping from outcomes is in
//! `response::outcome`.

mod counts;
mod operator;
mod reservations;
mod supply;
mod waiting;

pub use operator::PooledSandbox;
pub(crate) use operator::{AuditPage, Flavour, Flavours, PolicyReport, PoolPage, QueuedRun, RunBody, Stats};
pub(crate) use reservations::ReservationList;
pub use reservations::{OwnReservation, ReservationView};
pub(crate) use supply::{QuarantineList, QuarantineReportBody, RefillBody, RefillList};
pub(crate) use waiting::{
    CancelledWaiting, EstimateBasisBody, LineBody, WaitingBody, WaitingList, WaitingRequestBody,
};

use std::collections::BTreeMap;

use broker_domain::{Grant, ProviderAttributes, RequestId, RequestState, Status, TrackName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::response::codes::Code;

/// A sandbox that the caller holds.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Allocation")]
pub(crate) struct AllocationBody<'a> {
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
    /// When it was allocated, in seconds since the epoch.
    allocated_at: u64,
    /// When the allocation expires, in seconds since the epoch.
    expires_at: u64,
    /// The lab, if the request named it.
    track_name: Option<&'a str>,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    request_id: String,
}

impl<'a> AllocationBody<'a> {
    pub(crate) fn new(grant: &'a Grant, id: RequestId) -> Self {
        Self {
            attributes: &grant.attributes,
            sandbox_id: grant.sandbox_id.as_str(),
            name: grant.name.as_str(),
            external_id: grant.external_id.as_str(),
            allocated_at: grant.allocated_at.as_secs(),
            expires_at: grant.expires_at.as_secs(),
            track_name: grant.track_name.as_ref().map(TrackName::as_str),
            request_id: id.to_string(),
        }
    }
}

/// A lease that was renewed, or is long enough.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Renewed<'a> {
    /// The broker's id of the sandbox.
    pub(crate) sandbox_id: &'a str,
    /// When the allocation expires now, in seconds since the epoch.
    pub(crate) expires_at: u64,
    /// The latest that it can be renewed to, in seconds since the epoch.
    pub(crate) max_expires_at: u64,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
}

/// A sandbox that was given back.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Marked<'a> {
    /// The broker's id of the sandbox.
    pub(crate) sandbox_id: &'a str,
    /// Its state.
    #[schemars(schema_with = "any_status")]
    pub(crate) status: Status,
    /// When its deletion was requested, in seconds since the epoch.
    pub(crate) deletion_requested_at: u64,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
}

/// A sandbox that its owner reported broken.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reported<'a> {
    /// The broker's id of the sandbox.
    pub(crate) sandbox_id: &'a str,
    /// Its state: `quarantined`, unless its lease had ended before, or an operator has looked at it since.
    #[schemars(schema_with = "any_status")]
    pub(crate) status: Status,
    /// When its lease ended, in seconds since the epoch.
    pub(crate) ended_at: u64,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
}

/// A sandbox as its owner sees it, also after its return.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OwnedSandbox<'a> {
    /// The provider's attributes that the broker keeps (`BROKER_PROVIDER_ATTRIBUTES`).
    #[serde(flatten)]
    #[schemars(with = "Map<String, Value>")]
    pub(crate) attributes: &'a ProviderAttributes,
    /// The broker's id of the sandbox.
    pub(crate) sandbox_id: &'a str,
    /// Its name at the provider.
    pub(crate) name: &'a str,
    /// The provider's own id of it.
    pub(crate) external_id: &'a str,
    /// Its state.
    #[schemars(schema_with = "any_status")]
    pub(crate) status: Status,
    /// When it was allocated, in seconds since the epoch.
    pub(crate) allocated_at: u64,
    /// When the allocation expires or expired, in seconds since the epoch.
    pub(crate) expires_at: u64,
    /// The lab, if the request named it.
    pub(crate) track_name: Option<&'a str>,
    /// When its deletion was requested, in seconds since the epoch.
    pub(crate) deletion_requested_at: Option<u64>,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
}

/// A request whose outcome will be found at its `Location`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Queued {
    /// The id of the request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// Its state.
    #[schemars(schema_with = "queued")]
    pub(crate) status: &'static str,
}

/// The state of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RequestReport {
    /// The id of the request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// Any state but `queued` is final.
    #[schemars(extend("enum" = ["queued", "succeeded", "failed", "expired", "cancelled"]))]
    pub(crate) status: &'static str,
    /// Where it stands, while it waits in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<WaitingBody>,
    /// The response that the call itself would have had, once the request ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<StoredAnswer>,
}

/// The response that a call would have had.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoredAnswer {
    /// Its HTTP status.
    pub(crate) status: u16,
    /// Its body.
    #[schemars(schema_with = "any_outcome")]
    pub(crate) body: Value,
}

/// Liveness of the process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Alive {
    /// Always the same word.
    #[schemars(extend("enum" = ["alive"]))]
    pub(crate) status: &'static str,
}

/// Readiness of the process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Readiness {
    /// `ready` if all parts are fine.
    #[schemars(extend("enum" = ["ready", "not_ready"]))]
    pub(crate) status: &'static str,
    /// The parts, and whether each is fine.
    pub(crate) parts: BTreeMap<&'static str, bool>,
}

/// A problem (RFC 9457), with the `error` object that older clients read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemBody<'a> {
    /// The code, as a URN.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The title, the same for every problem of the code.
    pub(crate) title: &'a str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The detail of this case.
    pub(crate) detail: &'a str,
    /// The request, as a URN.
    pub(crate) instance: String,
    /// The advice.
    pub(crate) help: &'a str,
    /// The limit that is in the way, of a `QUOTA_EXCEEDED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<QuotaBody<'a>>,
    /// The same for older clients.
    pub(crate) error: ErrorBody<'a>,
}

/// A limit of the caller's tenant that is in the way.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Quota")]
pub(crate) struct QuotaBody<'a> {
    /// The flavour that is limited.
    pub(crate) flavour: &'a str,
    /// How many sandboxes of it the tenant holds.
    pub(crate) held: u32,
    /// How many it may hold.
    pub(crate) max: u32,
}

/// What the caller's tenant may hold, and holds.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct QuotaReport {
    /// The tenant that the token speaks for.
    pub(crate) tenant: String,
    /// Its limits. A flavour that is not named has none.
    pub(crate) limits: Vec<QuotaUse>,
    /// What is reserved for it, now or later.
    pub(crate) reservations: Vec<OwnReservation>,
}

/// A limit and its use.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct QuotaUse {
    /// The flavour that is limited.
    pub flavour: String,
    /// The names of its sandboxes begin so.
    pub prefix: String,
    /// How many the tenant holds. After a limit was lowered they may be more than it may hold.
    pub held: u32,
    /// How many it may hold.
    pub max: u32,
    /// How many more it may take now.
    pub free: u32,
}

/// A tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Tenant")]
pub struct TenantView {
    /// Its name.
    pub tenant: String,
    /// Its share among those that wait, beside the shares of others.
    pub weight: u32,
    /// Its limits, counted now. A flavour that is not named has none.
    pub limits: Vec<QuotaUse>,
    /// How many of its requests waited at the last look, a minute ago at most.
    pub waiting: u64,
    /// Since when the first of them waits, in seconds since the epoch; null if none does.
    pub oldest_since: Option<u64>,
    /// The reservations for which sandboxes are put aside now.
    pub running: Vec<OwnReservation>,
    /// The next reservation that begins; null if none is planned.
    pub next: Option<OwnReservation>,
    /// How many reservations are planned, with that one.
    pub planned: usize,
}

/// A page of tenants.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TenantList {
    /// By name.
    pub(crate) tenants: Vec<TenantView>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
}

/// A problem for older clients.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorBody<'a> {
    /// The code.
    #[schemars(schema_with = "any_code")]
    pub(crate) code: &'a str,
    /// The detail of this case.
    pub(crate) message: &'a str,
    /// The id of the request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// The number of seconds after which a repeat may help; as the header `Retry-After`.
    pub(crate) retry_after: Option<u64>,
}

fn any_status(_: &mut SchemaGenerator) -> Schema {
    let or_newer = Status::ALL.into_iter().chain([Status::Unknown]).map(Status::as_str);
    json_schema!({ "type": "string", "enum": or_newer.collect::<Vec<_>>() })
}

fn any_code(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Code::ALL.map(|code| code.entry().code).to_vec() })
}

fn queued(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "const": RequestState::Queued.as_str() })
}

fn any_outcome(schemas: &mut SchemaGenerator) -> Schema {
    let [allocation, marked, problem] = [
        schemas.subschema_for::<AllocationBody<'_>>(),
        schemas.subschema_for::<Marked<'_>>(),
        schemas.subschema_for::<ProblemBody<'_>>(),
    ];
    json_schema!({ "anyOf": [allocation, marked, problem] })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use broker_domain::FIXED_MEMBERS;
    use schemars::schema_for;

    use super::*;

    #[test]
    fn an_attribute_of_the_provider_cannot_hide_a_member_that_answers_about_a_sandbox_have() {
        let schemas =
            [schema_for!(AllocationBody<'_>), schema_for!(OwnedSandbox<'_>), schema_for!(PooledSandbox<'_>)];
        let members: BTreeSet<_> = schemas
            .iter()
            .flat_map(|schema| schema.get("properties").and_then(Value::as_object).into_iter().flatten())
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(members, FIXED_MEMBERS.into(), "broker_domain::FIXED_MEMBERS lists them");
    }
}
