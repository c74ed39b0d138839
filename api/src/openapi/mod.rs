//! OpenAPI 3.1 document of the API, made from the routes, the error codes and the body types.
//!
//! | module | holds |
//! |---|---|
//! | `operations` | one match: parameters and responses of each route |
//! | `operation` | the builder of an operation: security, common errors |
//! | `parameters`, `headers` | parameters of requests; headers of responses |
//!
//! Invariant: the document has every route of [`Route::ALL`] under its own method, and nothing else; where platforms and operators
//! have a listener each, a listener's document has the routes that it answers. The snapshot `openapi.json` beside this file shows
//! reviewers and clients every change of the whole; a test compares. Requests are not checked against the document.

mod headers;
mod operation;
mod operations;
pub(crate) mod page;
mod parameters;
mod reservations;
mod supply;
mod tenants;
mod waiting;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::operation::Components;
use crate::routes::{Audience, Route};

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

/// The document as a listener for `audience` serves it: made once, at the first request.
pub(crate) fn text(audience: Audience) -> Bytes {
    static EVERYBODYS: LazyLock<Bytes> = LazyLock::new(|| written(Audience::Everybody));
    static PLATFORMS: LazyLock<Bytes> = LazyLock::new(|| written(Audience::Platforms));
    static OPERATORS: LazyLock<Bytes> = LazyLock::new(|| written(Audience::Operators));
    match audience {
        Audience::Everybody => EVERYBODYS.clone(),
        Audience::Platforms => PLATFORMS.clone(),
        Audience::Operators => OPERATORS.clone(),
    }
}

fn written(audience: Audience) -> Bytes {
    Bytes::from(document(audience).to_string())
}

/// The document of the routes for `audience`, with the tags and the kinds of tokens that these have.
fn document(audience: Audience) -> Value {
    let mut parts = Components::new();
    let mut paths: Map<String, Value> = Map::new();
    let mut used = BTreeSet::new();
    for route in Route::ALL.into_iter().filter(|route| audience.include(*route)) {
        let operation = operations::operation(route, &mut parts);
        let tags = operation["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        used.extend(tags.map(str::to_owned));
        used.extend(operation["security"][0].as_object().into_iter().flat_map(Map::keys).cloned());
        let path = paths.entry(route.template()).or_insert_with(|| json!({}));
        path[route.method().as_str().to_ascii_lowercase()] = operation;
    }
    let mut tags = vec![
        json!({ "name": operation::TRACK, "description": "Requests of a platform on behalf of its tracks." }),
        json!({ "name": operation::ADMIN, "description": "Requests of operators." }),
        json!({ "name": operations::PROCESS, "description": "Probes, metrics and documentation. No token is required." }),
    ];
    tags.retain(|tag| tag["name"].as_str().is_some_and(|name| used.contains(name)));
    let schemes = [
        (
            PLATFORM,
            "A token of `BROKER_TRACK_TOKENS`. It authenticates the platform; which track it acts for is its assertion.",
        ),
        (
            OPERATOR,
            "A token of `BROKER_ADMIN_TOKENS`. One that is configured as `name:ro=token` is read-only: it is answered 403 \
             `FORBIDDEN` by every operation that changes something.",
        ),
    ];
    let schemes = schemes.into_iter().filter(|(name, _)| used.contains(*name));
    let schemes: Map<String, Value> = schemes
        .map(|(name, what)| {
            (name.to_owned(), json!({ "type": "http", "scheme": "bearer", "description": what }))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sandbox broker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": parts.finish(&schemes.into()),
    })
}

#[cfg(test)]
mod tests;
