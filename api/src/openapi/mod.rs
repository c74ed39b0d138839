//! What the API is, as OpenAPI 3.1: made from the list of routes, the table of codes and the types of the answers.
//!
//! | module | holds |
//! |---|---|
//! | `operations` | one match: what each route does, takes and answers |
//! | `operation` | how that becomes an operation: who may, what holds for all |
//! | `parameters`, `headers` | what stands in requests; what stands in answers |
//!
//! Invariant: every route of [`Route::ALL`] is in it under its own method, and nothing else. The snapshot
//! `openapi.json` beside this file is what reviewers and clients see change; a test compares. What it does not do: check
//! a request against the document.

mod headers;
mod operation;
mod operations;
mod parameters;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::operation::Components;
use crate::routes::Route;

/// The tokens that a platform may use, and those that an operator may.
const PLATFORM: &str = "platform";
const OPERATOR: &str = "operator";

const ABOUT: &str = "Hands out pre-created sandboxes from a pool and takes them back.\n\n\
    Repeating any request with the same `Idempotency-Key` is always safe; without one the owner is the key. Errors are \
    `application/problem+json` (RFC 9457) and also carry the `error` object that older clients read. Every answer \
    carries `X-Request-ID` and security headers. `HEAD` is answered wherever `GET` is. A path that is not listed here is \
    answered 404 `NOT_FOUND`, another method 405 `METHOD_NOT_ALLOWED` with `Allow`; a pool that is empty is a 409, not \
    an error of the broker.";

/// The document as it is served: made once, when it is first asked for.
pub(crate) fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));
    TEXT.clone()
}

/// The document.
fn document() -> Value {
    let mut parts = Components::new();
    let mut paths: Map<String, Value> = Map::new();
    for route in Route::ALL {
        let path = paths.entry(route.template()).or_insert_with(|| json!({}));
        path[route.method().as_str().to_ascii_lowercase()] = operations::operation(route, &mut parts);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sandbox broker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": operations::TRACK, "description": "What a platform asks for on behalf of its tracks." },
            { "name": operations::ADMIN, "description": "What operators ask for." },
            { "name": operations::PROCESS, "description": "For probes, scrapers and readers. Nobody has to say who he is." },
        ],
        "paths": paths,
        "components": parts.finish(&json!({
            PLATFORM: {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of `BROKER_TRACK_TOKENS`. It authenticates the platform; which track it acts for is \
                                its assertion.",
            },
            OPERATOR: {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of `BROKER_ADMIN_TOKENS`.",
            },
        })),
    })
}

#[cfg(test)]
mod tests;
