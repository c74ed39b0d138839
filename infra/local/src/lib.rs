//! The outside world on one machine: embedded SQS and DynamoDB endpoints and a provider stand-in, each over HTTP.
//!
//! `broker up`, the tests and the simulation run against them with the code that runs against AWS. What it does not do:
//! print, read the environment, or listen beyond loopback.

pub mod endpoints;
pub mod provider;
