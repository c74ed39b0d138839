//! OpenAPI 3.1 document of the API, made from the routes, the error codes and the body types.
//!
//! | module | holds |
//! |---|---|
//! | `operations` | one match: parameters and responses of each route |
//! | `operation` | the builder of an operation: security, common errors |
//! | `parameters`, `headers` | parameters of requests; headers of responses |
//!
//! Invariant: the document has every route of [`Route::ALL`] under its own method, and nothing else. The snapshot
//! `openapi.json` beside this file shows reviewers and clients every change; a test compares. Requests are not checked
//! against the document.

mod headers;
mod operation;
mod operations;
pub(crate) mod page;
mod parameters;
mod reservations;
mod supply;
mod tenants;
mod waiting;

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::operation::Components;
use crate::routes::Route;

/// The security schemes of platforms and operators.
const PLATFORM: &str = "platform";
const OPERATOR: &str = "operator";

const ABOUT: &str = "Hands out pre-created sandboxes from a pool and takes them back.\n\n\
    Repeating any request with the same `Idempotency-Key` is always safe; without one the owner is the key. Errors are \
    `application/problem+json` (RFC 9457) and also carry the `error` object that older clients read. Every answer \
    carries `X-Request-ID` and security headers. `HEAD` is answered wherever `GET` is. A path that is not listed here is \
    answered 404 `NOT_FOUND`, another method 405 `METHOD_NOT_ALLOWED` with `Allow`; a pool that is empty is a 409, not \
    an error of the broker. Of wrong tokens from one address 100 at once and 5 a second are 401, more are 429 \
    `RATE_LIMIT_EXCEEDED` with `Retry-After`; a right token is not held back by them.";

/// The document as it is served: made once, at the first request.
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
            { "name": operation::TRACK, "description": "Requests of a platform on behalf of its tracks." },
            { "name": operation::ADMIN, "description": "Requests of operators." },
            { "name": operations::PROCESS, "description": "Probes, metrics and documentation. No token is required." },
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
                "description": "A token of `BROKER_ADMIN_TOKENS`. One that is configured as `name:ro=token` is read-only: it is \
                                answered 403 `FORBIDDEN` by every operation that changes something.",
            },
        })),
    })
}

#[cfg(test)]
mod tests;
