//! `broker track`: what a track has, why, and what an allocate would be answered now. The same as
//! `GET /v1/admin/tracks/{track}` and the console.

use broker_api::story;
use broker_domain::{IdempotencyKey, LeaseKey, Timestamp, TrackId};
use clap::Args;
use serde_json::Value;

use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Track {
    /// The id of the track
    #[arg(value_parser = |text: &str| TrackId::new(text))]
    pub(crate) track: TrackId,
    /// The idempotency key, if it is not the track's id
    #[arg(long, value_parser = |text: &str| IdempotencyKey::new(text))]
    pub(crate) key: Option<IdempotencyKey>,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: Track) -> anyhow::Result<Done> {
    let Track { track, key, output } = args;
    let key = LeaseKey { key: key.unwrap_or_else(|| IdempotencyKey::from(&track)), track };
    // A track is shown also beside a policy that cannot be read.
    let policy = policy::in_force_or_none(&context).await;
    let story = story::of_track(&context.store, &policy, &key, context.clock.now()).await?;
    if output.json {
        output::json(&story)?;
        return Ok(Done::Ok);
    }
    output::line(format_args!("{}  infra/docs/RUNBOOK.md#{}\n", story.text, story.runbook))?;
    let time = |at: Option<u64>| at.map(|at| output::time(Timestamp::from_secs(at)));
    let status = |sandbox: &Value| {
        ["sandbox_id", "status"].map(|name| sandbox[name].as_str().unwrap_or("-").to_owned()).join(", ")
    };
    let rows = [
        ("track", Some(story.track)),
        ("key", Some(story.idempotency_key)),
        ("sandbox", story.sandbox.as_ref().map(status)),
        ("allocated", time(story.allocated_at)),
        ("expires", time(story.expires_at)),
        ("ended", time(story.ended_at)),
        ("request", story.request.map(|request| format!("{}, {}", request.request_id, request.status))),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
    let limits = story.limits.iter().map(|limit| {
        let of = format!("limit of {}", limit.tenant);
        [of, format!("{}: {} held, {} at most", limit.flavour, limit.held, limit.max)]
    });
    output::table(["TRACK", ""], rows.chain(limits))?;
    Ok(Done::Ok)
}
