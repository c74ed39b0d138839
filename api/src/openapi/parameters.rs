//! Parameters of requests in the OpenAPI document.
//!
//! The patterns accept what [`headers`](crate::request::headers) and the ids accept, except for characters that cannot be
//! typed everywhere (a name prefix may be any printable UTF-8 text).

use broker_domain::{DeadLetterState, Reason, Source, Status};
use serde_json::{Value, json};

use super::page;
use crate::limits::LONGEST_WAIT;

/// Ids and keys.
const ID: &str = "^[A-Za-z0-9._:@-]{1,128}$";
/// A key, quoted as in the draft, or not.
const KEY: &str = "^([A-Za-z0-9._:@-]{1,128}|\"[A-Za-z0-9._:@-]{1,128}\")$";
/// Printable ASCII without a space at either end, which HTTP would cut off.
const PREFIX: &str = "^[!-~]([ -~]{0,126}[!-~])?$";
/// Bytes in hexadecimal.
const CURSOR: &str = "^([0-9a-f]{2})+$";

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

pub(super) fn status() -> Value {
    let states = json!({ "type": "string", "enum": Status::ALL.map(Status::as_str) });
    optional("query", "status", "Only sandboxes in this state.", &states)
}

pub(super) fn removable() -> Value {
    let states = [Status::Stale, Status::DeletionFailed].map(Status::as_str);
    required(
        "query",
        "status",
        "The state of the records to remove.",
        &json!({ "type": "string", "enum": states }),
    )
}

pub(super) fn track() -> Value {
    optional("query", "track", "Only sandboxes that this owner holds or held.", &text(ID))
}

pub(super) fn lab() -> Value {
    optional("query", "track_name", "Only sandboxes for this lab.", &text(ID))
}

pub(super) fn cursor() -> Value {
    optional("query", "cursor", "The `next_cursor` of the page before; opaque.", &text(CURSOR))
}

/// The id of a dead letter.
const LETTER: &str = "^[0-9]{13}-[0-9a-f]{32}$";
/// One or more of them.
const LETTER_IDS: &str = "^[0-9]{13}-[0-9a-f]{32}(,[0-9]{13}-[0-9a-f]{32}){0,9}$";

pub(super) fn letter() -> Value {
    required("path", "id", "The `id` of a dead letter.", &text(LETTER))
}

pub(super) fn letter_ids() -> Value {
    optional("query", "id", "One or more ids, with commas.", &text(LETTER_IDS))
}

pub(super) fn letter_cursor() -> Value {
    optional("query", "cursor", "The `next_cursor` of the page before.", &text(LETTER))
}

pub(super) fn letter_queue() -> Value {
    let queues = json!({ "type": "string", "enum": Source::ALL.map(Source::as_str) });
    optional("query", "queue", "Only messages that died in this queue.", &queues)
}

pub(super) fn letter_kind() -> Value {
    optional("query", "kind", "Only messages of this kind, e.g. allocate.", &text("^[!-~]{1,64}$"))
}

pub(super) fn letter_reason() -> Value {
    let reasons = json!({ "type": "string", "enum": Reason::ALL.map(Reason::as_str) });
    optional("query", "reason", "Only messages that died of this reason.", &reasons)
}

pub(super) fn letter_track() -> Value {
    optional("query", "track", "Only messages of this owner.", &text(ID))
}

pub(super) fn letter_state() -> Value {
    let states = json!({ "type": "string", "enum": DeadLetterState::ALL.map(DeadLetterState::as_str) });
    optional("query", "state", "Only letters in this state.", &states)
}

pub(super) fn age(name: &str, what: &str, most: u32) -> Value {
    optional("query", name, what, &json!({ "type": "integer", "minimum": 0, "maximum": most }))
}

pub(super) fn rate() -> Value {
    let schema = json!({ "type": "integer", "minimum": 1, "maximum": 100_000 });
    optional("query", "rate", "Letters per second at most.", &schema)
}

pub(super) fn why() -> Value {
    required(
        "query",
        "why",
        "The reason of the discard, for the audit.",
        &text("^[!-~]([ -~]{0,498}[!-~])?$"),
    )
}

pub(super) fn number(name: &str, what: &str, from: u32, to: u32, default: u32) -> Value {
    let schema = json!({ "type": "integer", "minimum": from, "maximum": to, "default": default });
    optional("query", name, what, &schema)
}

pub(super) fn flag(name: &str, what: &str) -> Value {
    optional("query", name, what, &json!({ "type": "boolean", "default": false }))
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
