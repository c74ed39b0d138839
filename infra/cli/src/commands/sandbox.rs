//! `broker sandbox`: show, release, extend, retry the deletion of one sandbox.

use std::time::Duration;

use anyhow::{Context as _, bail};
use broker_api::response::bodies::PooledSandbox;
use broker_domain::{Allocation, EndReason, LeaseEnd, SandboxId, Status};
use broker_store::{Act, Changed, EndOutcome, Record, Seen};
use serde_json::{Value, json};

use crate::args;
use crate::context::Context;
use crate::done::Done;
use crate::output;

/// The longest lease, from now.
const LONGEST: Duration = Duration::from_secs(168 * 3_600);

pub(crate) async fn show(context: Context, args: args::OneSandbox) -> anyhow::Result<Done> {
    let record = read(&context, &args.id).await?;
    print(&record, args.output.json)
}

pub(crate) async fn release(context: Context, args: args::OneSandbox) -> anyhow::Result<Done> {
    let record = read(&context, &args.id).await?;
    let allocation = live(&record)?;
    context.audit(Act::Release, &args.id, None).await?;
    let end = LeaseEnd::by_broker(EndReason::Released, context.clock.now());
    match context.store.end(&record.sandbox.id, allocation, &end).await? {
        EndOutcome::Ended => print(&read(&context, &args.id).await?, args.output.json),
        EndOutcome::MovedOn => bail!("{} changed at the same moment: try again", args.id),
    }
}

pub(crate) async fn extend(context: Context, args: args::Extend) -> anyhow::Result<Done> {
    let record = read(&context, &args.one.id).await?;
    let (allocation, now) = (live(&record)?, context.clock.now());
    let expires_at = allocation.expires_at.max(now).floor_to_second();
    let expires_at = expires_at.plus(Duration::from_secs(3_600 * u64::from(args.hours)));
    if expires_at > now.plus(LONGEST) {
        bail!("a lease may last 168 hours from now at most");
    }
    context.audit(Act::Extend, &args.one.id, Some(args.hours.into())).await?;
    done(context.store.extend(&record.sandbox.id, allocation, expires_at, now).await?, &args.one.id)?;
    print(&read(&context, &args.one.id).await?, args.one.output.json)
}

pub(crate) async fn retry_delete(context: Context, args: args::OneSandbox) -> anyhow::Result<Done> {
    let (record, now) = (read(&context, &args.id).await?, context.clock.now());
    let seen = Seen { id: &record.sandbox.id, version: record.sandbox.version };
    context.audit(Act::RetryDelete, &args.id, None).await?;
    let changed = match record.sandbox.status {
        Status::DeletionFailed => context.store.retry_deletion(seen, now).await?,
        Status::PendingDeletion => context.store.postpone(seen, now, now).await?,
        other @ (Status::Available | Status::Allocated | Status::Stale | Status::Deleted) => {
            bail!("{} is {other}: there is no deletion to retry", args.id)
        }
    };
    done(changed, &args.id)?;
    print(&read(&context, &args.id).await?, args.output.json)
}

async fn read(context: &Context, id: &str) -> anyhow::Result<Record> {
    let id = SandboxId::new(id)?;
    context.store.record(&id).await?.with_context(|| format!("there is no sandbox {id}"))
}

fn live(record: &Record) -> anyhow::Result<&Allocation> {
    let sandbox = &record.sandbox;
    let live = sandbox.allocation.as_ref().filter(|_| sandbox.status == Status::Allocated);
    live.with_context(|| format!("{} is {}: it has no lease", sandbox.id, sandbox.status))
}

fn done(changed: Changed, id: &str) -> anyhow::Result<()> {
    match changed {
        Changed::Done => Ok(()),
        Changed::MovedOn => bail!("{id} changed at the same moment: try again"),
    }
}

fn print(record: &Record, as_json: bool) -> anyhow::Result<Done> {
    let shown = json!(PooledSandbox::new(record));
    if as_json {
        output::json(&shown)?;
    } else {
        let cells = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output::table(["SANDBOX", ""], cells.map(|(name, value)| [name.clone(), text(value)]))?;
    }
    Ok(Done::Ok)
}
