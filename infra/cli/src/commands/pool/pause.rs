//! `broker pool pause` and `resume`: stop and start all workers of a table.
//!
//! A worker checks every five seconds and still processes the messages of its polls under way, so a pause takes effect after
//! `BROKER_POLL_WAIT_S` and six seconds; a worker that starts checks first. Messages stay in the queues.

use anyhow::bail;
use broker_store::{Act, PoolStatus};
use serde::Serialize;

use crate::context::Context;
use crate::done::Done;
use crate::output;

#[derive(Serialize)]
struct ShownPause {
    paused: bool,
    paused_at: Option<u64>,
}

pub(crate) async fn pause(context: Context, json: bool) -> anyhow::Result<Done> {
    context.audit(Act::PausePool, &context.config.table, None).await?;
    context.store.pool.pause(&context.operator, context.now().await?).await?;
    show(&context, json).await
}

pub(crate) async fn resume(context: Context, json: bool) -> anyhow::Result<Done> {
    context.audit(Act::ResumePool, &context.config.table, None).await?;
    if !context.store.pool.resume().await?.is_applied() {
        bail!(
            "the table is a copy of another one: run `broker pool reconcile` first, what was handed out since is not known"
        );
    }
    show(&context, json).await
}

async fn show(context: &Context, json: bool) -> anyhow::Result<Done> {
    let (paused, since) = match context.store.pool.status().await? {
        PoolStatus::Open => (false, None),
        PoolStatus::Paused { since } => (true, Some(since)),
        PoolStatus::RestoredCopy { .. } | PoolStatus::OtherShards { .. } => (true, None),
    };
    if json {
        output::json(&ShownPause { paused, paused_at: since.map(broker_domain::Timestamp::as_secs) })?;
    } else {
        output::line(if paused { "paused: no worker receives messages" } else { "open" })?;
    }
    Ok(Done::Ok)
}
