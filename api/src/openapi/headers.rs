//! Headers of responses in the OpenAPI document.

use serde_json::{Map, Value, json};

use crate::response::codes::Code;

/// A header of a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    name: &'static str,
    what: &'static str,
    /// Whether every such response has it.
    always: bool,
    kind: HeaderKind,
}

impl Header {
    /// Its name among the components.
    fn component(&self) -> String {
        if self.always { self.name.to_owned() } else { format!("{}-optional", self.name) }
    }
}

#[derive(Clone, Copy, Debug)]
enum HeaderKind {
    Text,
    Uuid,
    Seconds,
}

const fn always(name: &'static str, kind: HeaderKind, what: &'static str) -> Header {
    Header { name, what, always: true, kind }
}

const REQUEST_ID: Header = always("X-Request-ID", HeaderKind::Uuid, "The id of this request, new for each.");
pub(super) const LOCATION: Header = always("Location", HeaderKind::Text, "Where the result can be polled.");
pub(super) const RETRY_AFTER: Header =
    always("Retry-After", HeaderKind::Seconds, "The number of seconds after which a repeat may help.");
/// [`LOCATION`], where only some responses of the status carry it.
const MAYBE_LOCATION: Header = Header { always: false, ..LOCATION };
/// [`RETRY_AFTER`], where only some responses of the status carry it.
pub(super) const MAYBE_RETRY_AFTER: Header = Header { always: false, ..RETRY_AFTER };
pub(super) const PREFERENCE_APPLIED: Header = Header {
    always: false,
    ..always("Preference-Applied", HeaderKind::Text, "The preference that was applied (RFC 7240).")
};
pub(super) const ENTITY_TAG: Header =
    always("ETag", HeaderKind::Text, "The tag of the policy, for `If-Match` (RFC 9110).");
const CHALLENGE: Header =
    always("WWW-Authenticate", HeaderKind::Text, "The scheme: a bearer token is required (RFC 6750).");
const POLICY: Header =
    always("RateLimit-Policy", HeaderKind::Text, "The rate limit, e.g. `\"default\";q=100;w=10`.");
const STANDING: Header =
    always("RateLimit", HeaderKind::Text, "The rest of the limit, e.g. `\"default\";r=0;t=1`.");

/// The headers of problems of this status, besides the request id, if they are of these codes and, if `preferred`, of a request's end.
pub(super) fn of_failure(status: u16, codes: &[Code], preferred: bool) -> Vec<Header> {
    let of_status: &[Header] = match status {
        503 if codes.contains(&Code::StillQueued) => &[RETRY_AFTER, MAYBE_LOCATION],
        401 => &[CHALLENGE],
        412 => &[ENTITY_TAG],
        409 | 503 => &[RETRY_AFTER],
        429 => &[RETRY_AFTER, POLICY, STANDING],
        _ => &[],
    };
    of_status.iter().copied().chain(preferred.then_some(PREFERENCE_APPLIED)).collect()
}

/// References to these headers and to the one of every response.
pub(super) fn references(headers: &[Header]) -> Value {
    let all = headers.iter().chain([&REQUEST_ID]);
    let entries = all.map(|header| {
        let reference = format!("#/components/headers/{}", header.component());
        (header.name.to_owned(), json!({ "$ref": reference }))
    });
    Value::Object(entries.collect::<Map<_, _>>())
}

/// Every header.
pub(super) fn all() -> Value {
    let all = [
        REQUEST_ID,
        LOCATION,
        MAYBE_LOCATION,
        RETRY_AFTER,
        MAYBE_RETRY_AFTER,
        PREFERENCE_APPLIED,
        ENTITY_TAG,
        CHALLENGE,
        POLICY,
        STANDING,
    ];
    let entries = all.map(|header| {
        let schema = match header.kind {
            HeaderKind::Text => json!({ "type": "string" }),
            HeaderKind::Uuid => json!({ "type": "string", "format": "uuid" }),
            HeaderKind::Seconds => json!({ "type": "integer", "minimum": 0 }),
        };
        let said = json!({ "description": header.what, "required": header.always, "schema": schema });
        (header.component(), said)
    });
    Value::Object(entries.into_iter().collect::<Map<_, _>>())
}
