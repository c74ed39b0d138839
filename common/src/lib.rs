//! What the API and the workers share: the domain, the messages between them, and the adapters to AWS.
//!
//! - [`domain`] decides, purely: no I/O, no clock, no randomness.
//! - [`messages`] is all that crosses a queue.
//! - [`store`] is the broker's table, [`queue`] its queues; nothing else knows DynamoDB or SQS.
//! - [`dead_letters`] keeps, shows, replays and discards what could not be processed.
//! - [`provider`] is the outside system that the sandboxes are in.
//! - [`config`], [`clock`], [`entropy`] read the environment, the time and randomness; everyone else is handed them.
//! - [`crash`] is where tests end a process; nothing in a release build.
//! - [`process`] is what every process has: [`aws`], [`telemetry`], [`trace`], [`metrics`], [`lifecycle`].

pub mod aws;
pub mod clock;
pub mod config;
pub mod crash;
pub mod dead_letters;
pub mod domain;
pub mod entropy;
pub mod heartbeat;
mod https;
pub mod lifecycle;
pub mod messages;
pub mod metrics;
pub mod process;
pub mod provider;
pub mod queue;
pub mod store;
pub mod telemetry;
pub mod trace;

/// The allocator of every binary: a third of the processor time under load went into the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
