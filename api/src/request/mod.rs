//! Parts of a request that every route reads: client address, token, rate limit, CORS, headers, body, preferences, query.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod client_addr;
pub(crate) mod cors;
pub(crate) mod flavour;
pub(crate) mod headers;
pub(crate) mod parameters;
pub(crate) mod prefer;
pub(crate) mod query;
pub(crate) mod rate_limit;
pub(crate) mod reservation;
pub(crate) mod seat;
