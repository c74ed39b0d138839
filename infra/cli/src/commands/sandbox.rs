//! `broker sandbox`: show, tell the story of, release, extend, retry the deletion of a sandbox.

use anyhow::{Context as _, bail};
use broker_api::story;
use broker_domain::{EndReason, LeaseEnd, SandboxId, Status, Timestamp};
use broker_store::{Act, Record, Seen, retry_on_conflict};
use clap::{Args, Subcommand};

use super::extend::{self, Extend};
use super::record::{TRIES, live, print, read};
use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Show the full record
    Show(OneSandbox),
    /// Show its history: arrival, leases, requests, operators, the provider's answers
    History(OneSandbox),
    /// End its lease now, as expiry would
    Release(OneSandbox),
    /// Extend its lease, or those of a lab, a tenant or a flavour
    Extend(Extend),
    /// Make a deletion that failed or waits due now
    RetryDelete(OneSandbox),
}

#[derive(Debug, Args)]
pub(crate) struct OneSandbox {
    /// The id of the sandbox
    #[arg(value_parser = |text: &str| SandboxId::new(text))]
    pub(crate) id: SandboxId,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Runs a command of `broker sandbox`.
pub(crate) async fn run(context: Context, command: SandboxCommand) -> anyhow::Result<Done> {
    match command {
        SandboxCommand::Show(args) => show(context, args).await,
        SandboxCommand::History(args) => history(context, args).await,
        SandboxCommand::Release(args) => release(context, args).await,
        SandboxCommand::Extend(args) => extend::run(context, args).await,
        SandboxCommand::RetryDelete(args) => retry_delete(context, args).await,
    }
}

async fn show(context: Context, args: OneSandbox) -> anyhow::Result<Done> {
    let record = read(&context, &args.id).await?;
    print(&context, &record, args.output.json).await
}

async fn history(context: Context, args: OneSandbox) -> anyhow::Result<Done> {
    let policy = policy::in_force_or_none(&context).await;
    let story = story::of_sandbox(&context.store, &policy, &args.id, context.clock.now()).await?;
    let story = story.with_context(|| format!("there is no sandbox {}", args.id))?;
    if args.output.json {
        output::json(&story)?;
    } else {
        let cells = story.events.into_iter().map(|event| {
            let at = output::time(Timestamp::from_ms(event.at_ms));
            [at, event.kind.to_owned(), event.who.unwrap_or_default(), event.text]
        });
        output::table(["AT (UTC)", "EVENT", "WHO", "WHAT"], cells)?;
    }
    Ok(Done::Ok)
}

async fn release(context: Context, args: OneSandbox) -> anyhow::Result<Done> {
    let record = read(&context, &args.id).await?;
    live(&record)?;
    let act = (Act::Release, args.id.as_str(), None);
    let record = context.act(act, async |_| end_lease(&context, &args.id, record).await).await?;
    print(&context, &record, args.output.json).await
}

async fn end_lease(context: &Context, id: &SandboxId, mut record: Record) -> anyhow::Result<Record> {
    for _ in 0..TRIES {
        let allocation = live(&record)?;
        let end = LeaseEnd::by_broker(EndReason::Released, context.now().await?, allocation.expires_at);
        let ended = retry_on_conflict(&context.entropy, || {
            context.store.leases.end(&record.sandbox.id, allocation, &end)
        })
        .await?;
        record = read(context, id).await?;
        if ended.is_applied() {
            return Ok(record);
        }
    }
    bail!("{id} changes all the time: look again")
}

async fn retry_delete(context: Context, args: OneSandbox) -> anyhow::Result<Done> {
    let record = read(&context, &args.id).await?;
    let act = (Act::RetryDelete, args.id.as_str(), None);
    let record = context.act(act, async |_| delete_now(&context, &args.id, record).await).await?;
    print(&context, &record, args.output.json).await
}

async fn delete_now(context: &Context, id: &SandboxId, mut record: Record) -> anyhow::Result<Record> {
    for _ in 0..TRIES {
        let now = context.now().await?;
        let seen = Seen { id: &record.sandbox.id, version: record.sandbox.version };
        let changed = match record.sandbox.status {
            Status::DeletionFailed => {
                retry_on_conflict(&context.entropy, || context.store.deletions.retry(seen, now)).await?
            }
            Status::PendingDeletion => {
                retry_on_conflict(&context.entropy, || context.store.deletions.postpone(seen, now, now))
                    .await?
            }
            other @ (Status::Arriving
            | Status::Available
            | Status::Reserved
            | Status::Allocated
            | Status::Stale
            | Status::Quarantined
            | Status::Deleted
            | Status::Unknown) => {
                bail!("{id} is {other}: there is no deletion to retry")
            }
        };
        record = read(context, id).await?;
        if changed.is_applied() {
            return Ok(record);
        }
    }
    bail!("{id} changes all the time: look again")
}
