//! Local stand-ins for the outside world: embedded SQS and DynamoDB endpoints and a provider, each over HTTP.
//!
//! `broker up`, the tests and the simulation run against them with the code that runs against AWS. They listen on loopback
//! only.

pub mod aws_shape;
pub mod endpoints;
pub mod provider;
