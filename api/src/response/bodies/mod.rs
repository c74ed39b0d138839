//! The bodies of answers: what is serialized, and what the OpenAPI document says of it, are one type.
//!
//! Names are part of the contract. Times are seconds since the epoch. What it does not do: decide which answer an outcome
//! gets (that is [`problem`](crate::response::problem)).

mod operator;

pub use operator::PooledSandbox;
pub(crate) use operator::{Page, QueuedRun, Run, Stats};

use std::collections::BTreeMap;

use broker_domain::{Grant, RequestId, RequestState, Status, TrackName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;

use crate::response::problem::Code;

/// A sandbox that the caller holds.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Allocation<'a> {
    /// The broker's id of it.
    sandbox_id: &'a str,
    /// Its name at the provider.
    name: &'a str,
    /// The provider's own id of it.
    external_id: &'a str,
    /// Since when the caller holds it, in seconds since the epoch.
    allocated_at: u64,
    /// Until when, in seconds since the epoch.
    expires_at: u64,
    /// The lab, if the request named it.
    track_name: Option<&'a str>,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    request_id: String,
}

impl<'a> Allocation<'a> {
    pub(crate) fn new(grant: &'a Grant, id: RequestId) -> Self {
        Self {
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

/// A sandbox that is on its way back.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Marked<'a> {
    /// The broker's id of it.
    pub(crate) sandbox_id: &'a str,
    /// What it is now.
    #[schemars(schema_with = "any_status")]
    pub(crate) status: Status,
    /// Since when, in seconds since the epoch.
    pub(crate) deletion_requested_at: u64,
    /// The id of this request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
}

/// A sandbox as its owner sees it, also after he gave it back.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OwnedSandbox<'a> {
    /// The broker's id of it.
    pub(crate) sandbox_id: &'a str,
    /// Its name at the provider.
    pub(crate) name: &'a str,
    /// The provider's own id of it.
    pub(crate) external_id: &'a str,
    /// Where it stands.
    #[schemars(schema_with = "any_status")]
    pub(crate) status: Status,
    /// Since when he holds or held it, in seconds since the epoch.
    pub(crate) allocated_at: u64,
    /// Until when, in seconds since the epoch.
    pub(crate) expires_at: u64,
    /// The lab, if the request named it.
    pub(crate) track_name: Option<&'a str>,
    /// When it was given or taken back, in seconds since the epoch.
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
    /// Where it stands.
    #[schemars(schema_with = "queued")]
    pub(crate) status: &'static str,
}

/// Where a request stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RequestReport {
    /// The id of the request that is told of.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// Once it is not `queued`, it never changes again.
    #[schemars(extend("enum" = ["queued", "succeeded", "failed", "expired", "cancelled"]))]
    pub(crate) status: &'static str,
    /// Once it ended: the answer that the call itself would have had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<StoredAnswer>,
}

/// The answer that a call would have had.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoredAnswer {
    /// Its HTTP status.
    pub(crate) status: u16,
    /// Its body.
    #[schemars(schema_with = "any_outcome")]
    pub(crate) body: Value,
}

/// That the process lives.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Alive {
    /// Always the same word.
    #[schemars(extend("enum" = ["alive"]))]
    pub(crate) status: &'static str,
}

/// Whether the process can serve.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Readiness {
    /// `ready` if all parts are fine.
    #[schemars(extend("enum" = ["ready", "not_ready"]))]
    pub(crate) status: &'static str,
    /// What it needs, and whether that is fine.
    pub(crate) parts: BTreeMap<&'static str, bool>,
}

/// A request that was not satisfied (RFC 9457), with the `error` object that older clients read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemBody<'a> {
    /// The code, as a URN.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it is, always in the same words.
    pub(crate) title: &'a str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What it is in this case.
    pub(crate) detail: &'a str,
    /// The request, as a URN.
    pub(crate) instance: String,
    /// What to do about it.
    pub(crate) help: &'a str,
    /// The same, as older clients read it.
    pub(crate) error: ErrorBody<'a>,
}

/// A problem as older clients read it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorBody<'a> {
    /// The problem, as programs tell it from others.
    #[schemars(schema_with = "any_code")]
    pub(crate) code: &'a str,
    /// What it is in this case.
    pub(crate) message: &'a str,
    /// The id of the request.
    #[schemars(extend("format" = "uuid"))]
    pub(crate) request_id: String,
    /// After how many seconds repeating may help; as the header `Retry-After`.
    pub(crate) retry_after: Option<u64>,
}

fn any_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Status::ALL.map(Status::as_str) })
}

fn any_code(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": Code::ALL.map(|code| code.entry().code) })
}

fn queued(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "const": RequestState::Queued.as_str() })
}

fn any_outcome(schemas: &mut SchemaGenerator) -> Schema {
    let [allocation, marked, problem] = [
        schemas.subschema_for::<Allocation<'_>>(),
        schemas.subschema_for::<Marked<'_>>(),
        schemas.subschema_for::<ProblemBody<'_>>(),
    ];
    json_schema!({ "anyOf": [allocation, marked, problem] })
}
