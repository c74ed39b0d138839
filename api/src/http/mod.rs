//! HTTP/1.1 connections: accepting, bounding, and refusing what never becomes a request.

mod connection;
#[cfg(test)]
mod connection_tests;
pub(crate) mod early_errors;
pub(crate) mod refusal;
pub(crate) mod room;
pub(crate) mod server;
pub(crate) mod smuggling;
