//! The runtime of every process: configuration, clock, randomness, AWS clients, logs, metrics, traces, start and end.
//!
//! - [`config`], [`clock`], [`entropy`] read the environment, the time and randomness; every other module takes them as
//!   arguments.
//! - [`aws`] holds the AWS clients and the [`Batcher`](aws::Batcher) that queue and table share.
//! - [`process`] starts and ends a process; [`lifecycle`], [`telemetry`], [`metrics`], [`trace`] are its parts.
//! - [`backoff`] holds the pauses between attempts; [`errors`] tells an error with its causes.
//! - [`panics`] turns a panic of one piece of work into an outcome.
//! - [`https`] is the HTTP client of the provider and of the trace exporter.
//! - [`crash_points`] are the places at which tests end a process; they are inert in a release build.

pub mod aws;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod crash_points;
pub mod entropy;
pub mod errors;
pub mod https;
pub mod lifecycle;
pub mod metrics;
pub mod own_pages;
pub mod panics;
pub mod process;
pub mod telemetry;
pub mod trace;

/// The allocator of every binary: a third of the processor time under load went into the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
