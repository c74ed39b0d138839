//! Responses: their bodies, and problems (RFC 9457) with one code for each outcome.

pub mod bodies;
pub mod problem;
pub(crate) mod response;
