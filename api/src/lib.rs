//! The API process: HTTP in, requests queue out, reply queue back in, HTTP out.
//!
//! ```text
//!           server ─ connection    routes     auth, headers, body        rpc                reply_queue
//! client ──▶ accept, bounds ──▶ service ──▶ caller, parameters ──▶ waiter, send, wait ◀── replies ◀── poll
//!    ▲                             │  └──▶ handlers ─────────────▶ store (GET)    │
//!    └────────── response ◀── problem, outcome ◀─────────────────────────────────┘
//! ```
//!
//! Invariants: a response is durable already or safe to repeat; a request that was sent is answered, or recorded before a 202
//! is returned. Workers decide who gets which sandbox, in one conditional write.

mod access_log;
mod console;
#[cfg(test)]
mod fuzz;
mod handlers;
mod http;
mod limits;
mod metrics;
mod openapi;
pub mod overview;
mod readiness;
mod request;
pub mod response;
mod routes;
#[cfg(test)]
mod routes_tests;
mod rpc;
mod served;
mod service;
mod shared_read;
pub mod story;
pub mod tenants;
pub mod waiting;

use std::sync::Arc;

use anyhow::Context as _;
use broker_domain::{LabDuration, LeaseBounds};
use broker_queue::QueueNames;
use broker_runtime::config::{Config, RateLimit};
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::own_pages::OwnPages;
use broker_runtime::process::{self, ListenError, Process};
use broker_store::{FollowedPolicy, SettingsError, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handlers::{
    Allocate, HealthChecks, LastOverview, Operator, Quotas, Renewals, RequestRecords, ReturnSandbox,
    Sandboxes,
};
use crate::http::early_errors::EarlyErrors;
use crate::http::server::Server;
use crate::readiness::ReadinessChecks;
use crate::request::auth::Authenticator;
use crate::request::cors::Cors;
use crate::request::rate_limit::Rate;
use crate::request::seat::Seats;
use crate::routes::Audience;
use crate::rpc::RequestReply;
use crate::rpc::backlog::RequestBacklog;
use crate::rpc::reply_queue::ReplyQueue;
use crate::rpc::reply_router::ReplyRouter;
use crate::served::ServedCounts;
use crate::service::{Door, Service};
use crate::waiting::CachedLines;

/// Connections of operators and machines where they have a listener of their own.
const ADMIN_CONNECTIONS: usize = 256;
/// Wrong tokens of one address that are told so; more are told to slow down.
const WRONG_TOKENS: RateLimit = RateLimit { per_s: 5, burst: 100 };

/// The listener of operators and machines, if they have one of their own.
pub async fn listen_for_operators(config: &Config) -> Result<Option<TcpListener>, ListenError> {
    match config.admin_listen {
        Some(address) => process::listen(address, "BROKER_ADMIN_LISTEN").await.map(Some),
        None => Ok(None),
    }
}

/// Serves on `listener` until the process ends and has drained; operators and machines on `admin`, if there is one. Fails only
/// before it serves, or when a setting is not the table's: then it has ended as otherwise.
///
/// The end, in this order: readiness is off while it still serves (a lame duck: load balancers choose other processes, each
/// response closes its connection), nothing is accepted any more, open requests are answered (those that would outlast the
/// drain time with 202), late replies are stored, the reply queue is deleted.
pub async fn run(process: Process, listener: TcpListener, admin: Option<TcpListener>) -> anyhow::Result<()> {
    let config = Arc::clone(&process.config);
    config.require_tokens()?;
    config.doubts().iter().for_each(|doubt| tracing::warn!("{doubt}"));
    let names = QueueNames::new(&config.prefix)?;
    let address = listener.local_addr().context("the listener has no address")?;
    metrics::describe();
    let connections = http::room::connections(config.max_connections)?;

    let store = Store::new(process.aws.dynamodb.clone(), &config.table, config.state_shards);
    match store.pool.check_settings(&config.prefix).await {
        Ok(()) => {}
        Err(SettingsError::Setting(error)) => return Err(error.into()),
        // It is not ready until the table answers.
        Err(SettingsError::Store(error)) => tracing::warn!("settings not compared with the table's: {error}"),
    }
    let replies = ReplyRouter::new(config.max_pending, config.max_pending_per_tenant);
    let (reply_queue, link) = ReplyQueue::new(process.clone(), store.clone(), replies.clone());
    let backlog = RequestBacklog::default();
    let policy = FollowedPolicy::start(store.clone(), process.lifecycle.hard.clone());
    let readiness = ReadinessChecks::new(process.clone(), link.clone(), backlog.clone(), policy.clone());
    // Readiness goes off with the process's own lifecycle; the server goes on until the lame duck's time is over.
    let serving = Lifecycle { soft: CancellationToken::new(), ..process.lifecycle.clone() };
    let rpc = RequestReply {
        link,
        replies: replies.clone(),
        store: store.clone(),
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        lifecycle: serving.clone(),
        backlog: backlog.clone(),
        async_rate: config.async_limit.map(|limit| Arc::new(Rate::new(limit, process.clock.instant()))),
        drain: config.drain,
        lingering: TaskTracker::new(),
    };
    let served = ServedCounts::default();
    let service = Arc::new(service(&process, &rpc, &readiness, &policy, &served));
    let server = |connections, answers, address| Server {
        service: Arc::clone(&service),
        clock: process.clock.clone(),
        refusals: EarlyErrors::new(process.clock.clone(), process.entropy.clone()),
        seats: Seats::new(connections),
        door: Door { answers, own_pages: OwnPages::of(&config, address) },
        leaving: process.lifecycle.soft.clone(),
    };
    let admin = admin.map(|listener| listener.local_addr().map(|address| (address, listener)));
    let admin = admin.transpose().context("the admin listener has no address")?;
    let answers = if admin.is_some() { Audience::Platforms } else { Audience::Everybody };
    let public = server(connections, answers, address);
    let for_operators = admin.map(|(address, listener)| {
        tracing::info!(%address, "api listening for operators");
        (server(ADMIN_CONNECTIONS, Audience::Operators, address), listener)
    });

    let answered_all = CancellationToken::new();
    let reply_queue = tokio::spawn(reply_queue.run(names, answered_all.clone()));
    let me = process.entropy.uuid();
    let remembered =
        tokio::spawn(served.remember(store.clone(), process.clock.clone(), me, answered_all.clone()));
    tokio::spawn(readiness.watch(store));
    tokio::spawn(end(process.clone(), serving.soft.clone()));
    tracing::info!(%address, connections, "api listening");

    let hard = &serving.hard;
    let operators = async {
        if let Some((server, listener)) = for_operators {
            server.serve(listener, &serving.soft, hard).await;
        }
    };
    tokio::join!(public.serve(listener, &serving.soft, hard), operators);
    rpc.lingering.close();
    hard.run_until_cancelled(rpc.lingering.wait()).await;
    answered_all.cancel();
    let kept = reply_queue.await.context("the reply queue's task failed")?;
    hard.run_until_cancelled(remembered).await;
    kept?;
    tracing::info!("drained");
    Ok(())
}

fn service(
    process: &Process,
    rpc: &RequestReply,
    readiness: &ReadinessChecks,
    policy: &FollowedPolicy,
    served: &ServedCounts,
) -> Service {
    let config = &process.config;
    let lines = CachedLines::new(rpc.store.clone(), process.clock.clone(), policy.clone(), config.waiting);
    let requests = RequestRecords {
        store: rpc.store.clone(),
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        lines: lines.clone(),
        policy: policy.clone(),
    };
    Service {
        clock: process.clock.clone(),
        entropy: process.entropy.clone(),
        authenticator: Authenticator::new(config),
        trusted_proxies: config.trusted_proxies.clone(),
        rate: config.rate_limit.map(|limit| Rate::new(limit, process.clock.instant())),
        cors: Cors { origins: config.cors_origins.clone() },
        wrong_tokens: Rate::new(WRONG_TOKENS, process.clock.instant()),
        allocate: Allocate {
            rpc: rpc.clone(),
            wait: config.wait,
            lab_duration: config.lab_duration,
            longest: LabDuration::nearest(config.lease_max.as_secs() / 3_600),
            policy: policy.clone(),
            lines: lines.clone(),
            records: requests.clone(),
        },
        return_sandbox: ReturnSandbox { rpc: rpc.clone(), wait: config.wait },
        renewals: Renewals {
            store: rpc.store.clone(),
            clock: process.clock.clone(),
            entropy: process.entropy.clone(),
            bounds: LeaseBounds { longest: config.lease_max, usual: config.lab_duration },
        },
        quotas: Quotas::new(rpc.store.clone(), policy.clone(), rpc.clock.clone()),
        sandboxes: Sandboxes { store: rpc.store.clone(), clock: process.clock.clone() },
        requests,
        operator: Operator {
            rpc: rpc.clone(),
            wait: config.wait,
            entropy: process.entropy.clone(),
            aws: process.aws.clone(),
            scheduler: config.scheduler,
            last_overview: LastOverview::default(),
            policy: policy.clone(),
            lines,
        },
        health: HealthChecks {
            readiness: readiness.clone(),
            metrics: process.metrics.clone(),
            replies: rpc.replies.clone(),
            clock: process.clock.clone(),
        },
        served: served.clone(),
    }
}

/// When the process ends: serves for the lame duck's time, stops `accepting`, and ends hard when the drain time is over.
async fn end(process: Process, accepting: CancellationToken) {
    let (config, hard) = (&process.config, &process.lifecycle.hard);
    process.lifecycle.soft.cancelled().await;
    hard.run_until_cancelled(tokio::time::sleep(config.lame_duck)).await;
    accepting.cancel();
    tokio::time::sleep(config.drain).await;
    hard.cancel();
}
