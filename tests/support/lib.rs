//! Test harness: real `broker-api`, `broker-worker` and `broker` processes against an endpoint process that speaks the real
//! wire protocols, seen from outside: over HTTP, the `broker` command and the AWS SDK.
//!
//! ```text
//! story(Setup::new().pool(5), async |broker| {          // 1 API, 1 worker, 5 sandboxes
//!     let first = broker.allocate("track-1").send().await.expect_status(201);
//!     let again = broker.allocate("track-1").send().await.expect_status(200);
//!     assert_eq!(first.sandbox_id(), again.sandbox_id());
//! }).await;                                             // then: Broker::finish
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`binaries`] | the executables under test, built through cargo, never stale |
//! | [`warden`] | nothing outlives the test process, however it ends |
//! | [`process`], [`endpoint`] | one process with its log; the SQS and DynamoDB endpoints |
//! | [`up`] | `broker up` as a user starts it |
//! | [`setup`], [`broker`], [`finish`] | a whole broker; every story must leave nothing behind |
//! | [`proxy`] | faults between the processes and AWS: latency, losses, throttling, conflicts, duplicates, outages |
//! | [`api`], [`answer`], [`raw`] | the HTTP client, its responses, and malformed bytes |
//! | [`provider`] | the provider stand-in, misbehaving on demand |
//! | [`cli`], [`queues`], [`table`] | the `broker` command; SQS and DynamoDB through the SDK |
//! | [`letters`] | dead letters: their number, and the operator's actions |
//! | [`collector`] | a trace collector over OTLP, which can be down |
//! | [`promql`] | the metrics of queries, and those of processes |
//! | [`dates`] | a relay that moves the time of AWS |
//! | [`watch`] | metrics, logs and resources of a broker |
//! | [`wait`] | the one place that waits |
//!
//! A fault that a story plants (a killed worker, a message sent twice, a lost response) uses the same interfaces as in
//! production: signals, queues, the table and the network. There is no mock.

pub mod answer;
pub mod api;
pub mod binaries;
pub mod broker;
pub mod cli;
pub mod collector;
pub mod dates;
pub mod endpoint;
pub mod finish;
pub mod letters;
#[cfg(test)]
mod pages;
pub mod process;
pub mod promql;
pub mod provider;
pub mod proxy;
pub mod queues;
pub mod raw;
pub mod setup;
pub mod table;
pub mod up;
pub mod wait;
pub mod warden;
pub mod watch;

pub use answer::Answer;
pub use api::{Api, Call, TRACK_TOKEN};
pub use broker::{Broker, story};
pub use collector::Collector;
pub use provider::Provider;
pub use proxy::{Fault, FaultProxy, Latency, Outage, Rule, ShapedService};
pub use setup::Setup;
pub use up::Up;
pub use wait::{together, wait_for_condition, wait_for_condition_up_to, wait_until, within};
