//! `broker pool pause` and `resume`: stop and start all workers of a table.
//!
//! A worker checks every five seconds and still processes the messages of its polls under way, so a pause takes effect after
//! `BROKER_POLL_WAIT_S` and six seconds; a worker that starts checks first. Messages stay in the queues. A pool that is paused
//! stays so for who paused it first.

use anyhow::bail;
use broker_domain::Pause;
use broker_store::{Act, PoolStatus};
use serde::Serialize;

use crate::context::Context;
use crate::done::Done;
use crate::output;

#[derive(Serialize)]
struct ShownPause {
    paused: bool,
    paused_at: Option<u64>,
    paused_by: Option<String>,
    /// Whether this command changed it.
    changed: bool,
}

pub(crate) async fn pause(context: Context, json: bool) -> anyhow::Result<Done> {
    let act = (Act::PausePool, context.config.table.as_str(), None);
    let already = context.act(act, async |line| {
        let paused = context.store.pool.pause(&context.operator, context.now().await?).await?;
        Ok(context.already_paused(line, paused).await)
    });
    let already = already.await?;
    show(&context, already, json).await
}

pub(crate) async fn resume(context: Context, json: bool) -> anyhow::Result<Done> {
    let act = (Act::ResumePool, context.config.table.as_str(), None);
    let unchanged = context.act(act, async |line| {
        if let None | Some((PoolStatus::Open, None)) = context.store.pool.look().await? {
            return Ok(Some(context.unchanged(line, "not paused").await));
        }
        if !context.store.pool.resume().await?.is_applied() {
            bail!(
                "the table is a copy of another one: run `broker pool reconcile` first, what was handed out since is not known"
            );
        }
        Ok(None)
    });
    let unchanged = unchanged.await?;
    show(&context, unchanged, json).await
}

/// Shows what stands; `unchanged` says why nothing was changed.
async fn show(context: &Context, unchanged: Option<String>, json: bool) -> anyhow::Result<Done> {
    let (standing, pause) = context.store.pool.look().await?.unwrap_or((PoolStatus::Open, None));
    let paused = standing != PoolStatus::Open;
    if json {
        let (since, by) = pause.map_or((None, None), |Pause { since, by }| (Some(since), by));
        output::json(&ShownPause {
            paused,
            paused_at: since.map(broker_domain::Timestamp::as_secs),
            paused_by: by,
            changed: unchanged.is_none(),
        })?;
        return Ok(Done::Ok);
    }
    let word = if paused { "paused: no worker receives messages" } else { "open" };
    output::line(unchanged.map_or_else(|| word.to_owned(), |why| format!("{word}; {why}")))?;
    Ok(Done::Ok)
}
