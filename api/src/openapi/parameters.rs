//! Parameters of requests in the OpenAPI document: headers and parts of the path; queries are told in
//! [`request::parameters`](crate::request::parameters).
//!
//! The patterns accept what [`headers`](crate::request::headers) and the ids accept, except for characters that cannot be
//! typed everywhere (a name prefix may be any printable UTF-8 text).

use broker_domain::Job;
use serde_json::{Value, json};

use super::page;
use crate::console;
use crate::limits::LONGEST_WAIT;
use crate::request::parameters::{FLAVOUR_NAME, ID, LETTER, Parameter};

/// A key, quoted as in the draft, or not.
const KEY: &str = "^([A-Za-z0-9._:@-]{1,128}|\"[A-Za-z0-9._:@-]{1,128}\")$";
/// Printable ASCII without a space at either end, which HTTP would cut off.
const PREFIX: &str = "^[!-~]([ -~]{0,126}[!-~])?$";

/// The header that names the owner.
pub(super) const OWNER: &str = "X-Instruqt-Sandbox-ID";

pub(super) fn owner() -> Value {
    let what = "The owner: one student's lab instance. `X-Track-ID` is its older name, read where this one is missing.";
    required("header", OWNER, what, &text(ID))
}

pub(super) fn track_name() -> Value {
    optional(
        "header",
        "X-Instruqt-Track-ID",
        "The lab, shared by many owners; stored as `track_name`.",
        &text(ID),
    )
}

pub(super) fn name_prefix() -> Value {
    optional("header", "X-Sandbox-Name-Prefix", "Only sandboxes whose name begins with this.", &text(PREFIX))
}

pub(super) fn flavour() -> Value {
    let what = "Only sandboxes of this flavour of the operator's policy; also `flavour` in the body.";
    optional("header", "X-Sandbox-Flavour", what, &text(FLAVOUR_NAME))
}

pub(super) fn idempotency_key() -> Value {
    let what = "Deduplicates the intent; absent, it is the owner. One per sandbox that an owner needs at the same time.";
    optional("header", "Idempotency-Key", what, &text(KEY))
}

pub(super) fn prefer() -> Value {
    let most = LONGEST_WAIT.as_secs();
    let what = format!(
        "`wait=N`: how many seconds to wait, at most {most} (RFC 7240). Unknown preferences are ignored."
    );
    optional("header", "Prefer", &what, &json!({ "type": "string", "examples": ["wait=5"] }))
}

pub(super) fn prefer_or_async() -> Value {
    let most = LONGEST_WAIT.as_secs();
    let what = format!(
        "`wait=N`: how many seconds to wait, at most {most}; `respond-async`: not at all, the answer is a 202 (RFC 7240). \
         Unknown preferences are ignored."
    );
    optional("header", "Prefer", &what, &json!({ "type": "string", "examples": ["wait=5", "respond-async"] }))
}

pub(super) fn sandbox() -> Value {
    required("path", "id", "The `sandbox_id` of an allocate response.", &text(ID))
}

pub(super) fn request() -> Value {
    let uuid = json!({ "type": "string", "format": "uuid" });
    required("path", "request_id", "The `request_id` of a 202 or of `STILL_QUEUED`.", &uuid)
}

pub(super) fn file() -> Value {
    let names: Vec<_> = page::names().collect();
    required("path", "file", "A file of the page.", &json!({ "type": "string", "enum": names }))
}

pub(super) fn console_file() -> Value {
    let names: Vec<_> = console::names().collect();
    required("path", "file", "A file of the page.", &json!({ "type": "string", "enum": names }))
}

pub(super) fn track_in_path() -> Value {
    required("path", "track", "The owner.", &text(ID))
}

pub(super) fn job() -> Value {
    let jobs = json!({ "type": "string", "enum": Job::ALL.map(Job::as_str) });
    required("path", "job", "The job.", &jobs)
}

pub(super) fn flavour_in_path() -> Value {
    let flavour = json!({ "type": "string", "pattern": "^[a-z0-9_-]{1,64}$" });
    required("path", "flavour", "The flavour.", &flavour)
}

pub(super) fn reservation() -> Value {
    let uuid = json!({ "type": "string", "format": "uuid" });
    required("path", "id", "The `id` of a reservation.", &uuid)
}

pub(super) fn letter() -> Value {
    required("path", "id", "The `id` of a dead letter.", &text(LETTER))
}

pub(super) fn if_match() -> Value {
    let what = "The `ETag` of the policy that this one replaces, or `*`. Needed for every change.";
    optional("header", "If-Match", what, &text("^(\\*|\"[!#-~]{1,64}\")$"))
}

pub(super) fn query(parameter: &Parameter) -> Value {
    let of_query = if parameter.required { required } else { optional };
    of_query("query", parameter.name, parameter.what, &parameter.schema())
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn required(place: &str, name: &str, what: &str, schema: &Value) -> Value {
    json!({ "in": place, "name": name, "description": what, "required": true, "schema": schema })
}

fn optional(place: &str, name: &str, what: &str, schema: &Value) -> Value {
    json!({ "in": place, "name": name, "description": what, "required": false, "schema": schema })
}
