//! The worker process: takes requests from the queue, claims in the table, replies to the API that waits.
//!
//! ```text
//! {prefix}-requests ─▶ requests ─▶ handlers ─▶ table
//!                         │            └ allocate          a claim, or what the caller's lease says
//!                         │            └ mark_for_deletion  the end of a lease
//!                         └─▶ answer: write state → send reply → delete message
//! {prefix}-maintenance ─▶ maintenance ─▶ jobs ─▶ table, provider
//!        └────────────────── schedule: each job's tick, sent by one worker
//! serve: what arrived is offered, by the job that brought it, and every few seconds what was left behind
//! {prefix}-*-dlq ─▶ dead_letters ─▶ table: dead letters, for the operator
//! ```
//!
//! Invariant: every effect may happen twice. A worker that dies at any point leaves a message that becomes visible again and
//! finds its own success. A worker keeps nothing between messages that another worker would need.

mod candidates;
mod consumers;
mod finality;
mod gauges;
mod handlers;
mod health;
mod jobs;
mod letters;
mod ops;
mod reply;
#[cfg(test)]
#[path = "../../common/domain/src/samples.rs"]
mod samples;
mod schedule;
mod shares;
mod starting;

use std::sync::Arc;

use anyhow::Context as _;
use broker_domain::{Source, Timestamp};
use broker_provider::Provider;
use broker_provider::hooks::{HookKind, Hooks};
use broker_queue::{QueueKind, QueueNames, QueueUrls, Sender};
use broker_runtime::aws::Aws;
use broker_runtime::config::{Config, Scheduler};
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::own_pages::OwnPages;
use broker_runtime::process::Process;
use broker_store::heartbeat;
use broker_store::reservations::FollowedReservations;
use broker_store::{
    FollowedPolicy, HookAway, Instance, PoolStatus, ProviderAway, Received, Role, SeenEmpty, SelfReport,
    Store,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use candidates::Candidates;
use consumers::{DeadLetterHandler, MaintenanceHandler, RequestHandler, Services};
use handlers::Handlers;
use health::Health;
use jobs::serve::{self, NextWalk, OwnGrants, SoonOver};
use jobs::{CallSlots, Jobs, OwnSync};
use reply::ReplySender;
use starting::NotPrepared;

/// Characters of a failure that a heartbeat tells.
const LONGEST_WHY: usize = 200;

/// Runs a worker until the process's lifecycle ends and its work is finished. `ops` serves `/metrics`, `/healthz` and
/// `/readyz`; `None` in a process that serves them elsewhere.
pub async fn run(process: Process, ops: Option<TcpListener>) -> anyhow::Result<()> {
    let Process { config, clock, entropy, aws, lifecycle, metrics } = process;
    config.provider_doubt().iter().for_each(|doubt| tracing::warn!("{doubt}"));
    let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
    let names = QueueNames::new(&config.prefix)?;
    let id = entropy.uuid();
    // Probes are answered also while AWS is away.
    let (health, checks) = Health::starting();
    if let Some(listener) = ops {
        serve_ops(listener, &config, metrics, &health, &lifecycle)?;
    }
    let prepare = || prepare(&store, &aws, &config, &names, Instance::new(id, Role::Worker, clock.now()));
    let prepared = starting::with_retries(&lifecycle, &entropy, prepare);
    let prepared = match prepared.await {
        // A cause of its own, so that the process ends as it does for any bad setting.
        Err(NotPrepared::Setting(error)) => return Err(error.into()),
        prepared => prepared?,
    };
    let Some((urls, standing)) = prepared else { return Ok(()) };

    jobs::begin_counting();
    checks.start(store.clone(), clock.clone(), &lifecycle, &standing);
    let services = Services { aws, urls, store, health, config, clock, entropy };
    let jobs = jobs_of(&services, &lifecycle)?;
    let (empty, seen_empty) = watch::channel(SeenEmpty::default());
    keep_pool(&jobs, id, &services.config, empty, &lifecycle);
    let (open, mut opened) = (services.health.clone(), services.health.gate());
    // The first heartbeat came before it was known.
    opened.mark_changed();
    let (policy, freed, soon) = (jobs.policy.clone(), Arc::clone(&jobs.freed), jobs.soon.clone());
    let (own_grants, told_at) = (jobs.own_grants.clone(), jobs.clock.clone());
    let (hooks, hooks_of) = (jobs.hooks.clone(), jobs.policy.clone());
    let breaker = jobs.provider.as_ref().map(|provider| provider.breaker().clone());
    let maintenance = MaintenanceHandler::consumer(&services, jobs);
    let oldest_maintenance = maintenance.oldest_age();
    lifecycle.tracker.spawn(maintenance.run(lifecycle.clone()));
    drain_dead_letters(&services, &lifecycle);
    let Services { store, clock, entropy, .. } = services.clone();
    let keeps_attributes = !services.config.provider_attributes.is_empty();
    let candidates = Candidates::new(store.clone(), clock.clone(), entropy.clone(), keeps_attributes);
    let reservations = FollowedReservations::start(store.clone(), lifecycle.hard.clone());
    let followed = (policy, reservations);
    let handlers = Handlers::new(store.clone(), candidates, clock.clone(), entropy, followed, freed, soon);
    let requests = RequestHandler::consumer(&services, handlers);
    let oldest_request = requests.oldest_age();
    let report = move || SelfReport {
        received: Received {
            requests: oldest_request.take(),
            maintenance: oldest_maintenance.take(),
            count: oldest_request.take_count(),
        },
        receives: Some(open.is_ready()),
        seen_empty: *seen_empty.borrow(),
        granted: own_grants.lately(told_at.now()),
        provider_away: breaker.as_ref().and_then(|breaker| {
            let (age, why) = breaker.failing_for(told_at.instant())?;
            Some(ProviderAway { since: told_at.now().minus(age), why })
        }),
        hooks_away: hooks_away(&hooks, &hooks_of, told_at.now()),
    };
    let me = (id, Role::Worker);
    // Not on the tracker: it is listed until nothing that it holds can write any more.
    let lives = CancellationToken::new();
    let heartbeat = tokio::spawn(heartbeat::keep(store, me, clock, report, |_| (), opened, lives.clone()));

    let consuming = lifecycle.tracker.spawn(requests.run(lifecycle.clone()));
    let in_time = lifecycle.drained(services.config.drain).await;
    tracing::info!(in_time, "worker drained");
    if !in_time {
        // What is under way may still write: it stays listed until it is silent for three heartbeats.
        heartbeat.abort();
        return Ok(());
    }
    lives.cancel();
    heartbeat.await.context("the heartbeat panicked")?;
    consuming.await.context("the consumer of requests panicked")
}

/// Drains the dead-letter queues into the table until the lifecycle ends.
fn drain_dead_letters(services: &Services, lifecycle: &Lifecycle) {
    for (source, queue) in
        [(Source::Requests, QueueKind::RequestsDlq), (Source::Maintenance, QueueKind::MaintenanceDlq)]
    {
        lifecycle.tracker.spawn(DeadLetterHandler::consumer(services, source, queue).run(lifecycle.clone()));
    }
}

/// Serves metrics and probes until the lifecycle's hard end.
fn serve_ops(
    listener: TcpListener,
    config: &Config,
    metrics: broker_runtime::metrics::Handle,
    health: &Health,
    lifecycle: &Lifecycle,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "worker listening");
    let own_pages = OwnPages::of(config, address);
    tokio::spawn(ops::serve(listener, own_pages, metrics, health.clone(), lifecycle.hard.clone()));
    Ok(())
}

/// Starts what runs by time: the gauges, SERVE, and the schedule where workers keep it.
fn keep_pool(
    jobs: &Jobs,
    id: Uuid,
    config: &Arc<Config>,
    empty: watch::Sender<SeenEmpty>,
    lifecycle: &Lifecycle,
) {
    let (tracker, soft) = (&lifecycle.tracker, &lifecycle.soft);
    tracker.spawn(gauges::show(jobs.clone(), empty, soft.clone()));
    tracker.spawn(serve::keep(jobs.clone(), id, config.every.serve, soft.clone()));
    if config.scheduler == Scheduler::Workers {
        let (jobs, config, soft) = (jobs.clone(), Arc::clone(config), soft.clone());
        tracker.spawn(async move { schedule::keep(jobs, &config, soft).await });
    }
}

/// Binds the pool's settings, resolves the queues, and tells that this worker is here.
async fn prepare(
    store: &Store,
    aws: &Aws,
    config: &Config,
    names: &QueueNames,
    me: Instance,
) -> Result<(QueueUrls, PoolStatus), NotPrepared> {
    store.pool.bind_settings(&config.prefix).await?;
    let urls = QueueUrls::resolve(aws, names).await?;
    // Seen first, then looking: an operator who pauses the pool and then sees no instance knows that this worker will see the
    // pause.
    store.instances.heartbeat(&me).await?;
    // `broker pool reshard` marks the table, and then looks for instances.
    store.pool.check_settings(&config.prefix).await?;
    Ok((urls, store.pool.status().await?))
}

/// The hooks that this worker does not ask, by the policy's names.
fn hooks_away(hooks: &Hooks, policy: &FollowedPolicy, now: Timestamp) -> Vec<HookAway> {
    let Ok(policy) = policy.now() else { return Vec::new() };
    let away = hooks.failing(&policy).into_iter().map(|failing| HookAway {
        hook: match failing.kind {
            HookKind::BeforeDelete => "before_delete",
            HookKind::Check | HookKind::RefillRequested | HookKind::Test => "gate",
        }
        .to_owned(),
        since: now.minus(failing.since),
        why: failing.why.chars().take(LONGEST_WHY).collect(),
    });
    away.collect()
}

/// The jobs of a worker, with all that they need.
fn jobs_of(services: &Services, lifecycle: &Lifecycle) -> anyhow::Result<Jobs> {
    let Services { aws, urls, store, health, config, clock, entropy } = services;
    let provider = config.provider.as_ref().map(|p| Provider::new(p, clock.clone())).transpose()?;
    Ok(Jobs {
        store: store.clone(),
        provider: provider.map(|provider| provider.keeping(config.provider_attributes.clone())),
        hooks: Hooks::new(&config.hooks, clock.clone()),
        maintenance: Sender::new(aws.sqs.clone(), urls.get(QueueKind::Maintenance), Sender::MAX_IN_FLIGHT),
        aws: aws.clone(),
        urls: urls.clone(),
        health: health.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        stop: lifecycle.soft.clone(),
        policy: FollowedPolicy::start(store.clone(), lifecycle.hard.clone()),
        gates: serve::Gates::default(),
        replies: Arc::new(ReplySender::new(aws, urls, store.clone(), clock.clone())),
        next_walk: NextWalk::default(),
        spool_dir: config.spool_dir.as_path().into(),
        freed: Arc::default(),
        soon: SoonOver::default(),
        own_grants: OwnGrants::default(),
        call_slots: CallSlots::default(),
        own_sync: OwnSync::default(),
        settings: jobs::JobSettings::new(config),
    })
}
