//! The worker: takes requests from the queue, claims in the table, replies to the API that waits.
//!
//! ```text
//! {prefix}-requests ─▶ consumer ─▶ handlers ─▶ table
//!                         │            └ allocate          a claim, or what the caller's lease says
//!                         │            └ mark_for_deletion  the end of a lease
//!                         └─▶ answer: write state → send reply → delete message
//! ```
//!
//! Invariant: every effect may happen twice. A worker that dies at any point leaves a message that becomes visible again
//! and finds its own success. What it does not do: speak HTTP with clients, or remember anything between messages that
//! another worker would need.

mod answer;
mod candidates;
mod consumer;
mod handlers;
mod health;
mod ops;

use std::sync::Arc;

use anyhow::Context as _;
use broker_common::process::Process;
use broker_common::queue::{QueueNames, QueueUrls};
use broker_common::store::Store;
use tokio::net::TcpListener;

use answer::Answers;
use candidates::Candidates;
use consumer::Consumer;
use handlers::Handlers;
use health::Health;

/// Runs a worker until the process's lifecycle ends and its work is finished. `ops` is where it serves `/metrics`,
/// `/healthz` and `/readyz`; `None` in a process that serves them elsewhere.
pub async fn run(process: Process, ops: Option<TcpListener>) -> anyhow::Result<()> {
    let Process { config, clock, entropy, aws, lifecycle, metrics } = process;
    let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
    let names = QueueNames::new(&config.prefix)?;
    let urls = QueueUrls::resolve(&aws, &names).await?;
    store.ping().await?;

    let health = Health::start(store.clone(), clock.clone(), &lifecycle);
    if let Some(listener) = ops {
        tracing::info!(address = %listener.local_addr()?, "worker listening");
        tokio::spawn(ops::serve(listener, metrics, health.clone(), lifecycle.hard.clone()));
    }
    let candidates = Candidates::new(store.clone(), clock.clone(), entropy.clone());
    let handlers = Handlers::new(store.clone(), candidates, clock.clone(), entropy.clone());
    let answers = Answers::new(&aws, &urls, store, clock.clone());
    let consumer = Consumer::new(&aws, &urls, handlers, answers, health, &config, clock, entropy);

    let consuming = lifecycle.tracker.spawn(Arc::new(consumer).run(lifecycle.clone()));
    let in_time = lifecycle.drained(config.drain).await;
    tracing::info!(in_time, "worker drained");
    if in_time { consuming.await.context("the consumer ended badly") } else { Ok(()) }
}
