//! `broker waiting`: the requests that wait in lines; lists them, and cancels some or all.

use anyhow::bail;
use broker_domain::waiting::{Place, minted_at};
use broker_domain::{NamePrefix, RequestId, TenantName};
use broker_messages::{Body, RequestMessage};
use broker_store::{Act, Pages, retry_on_conflict};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

/// Places that are read at a time.
const READ: u16 = 500;
/// Places that are listed if no number is named.
const DEFAULT_LIMIT: usize = 50;

#[derive(Debug, Subcommand)]
pub(crate) enum WaitingCommand {
    /// List requests that wait, each line in its order
    List(ListWaiting),
    /// Cancel requests that wait
    Cancel(Cancel),
}

/// Which requests.
#[derive(Debug, Args)]
struct WaitingFilter {
    /// Only of this tenant
    #[arg(long, value_name = "TENANT", value_parser = |text: &str| TenantName::new(text))]
    tenant: Option<TenantName>,
    /// Only those that asked for exactly this name prefix
    #[arg(long = "name-prefix", value_name = "PREFIX", value_parser = |text: &str| NamePrefix::new(text))]
    prefix: Option<NamePrefix>,
    /// Only of this track
    #[arg(long, value_name = "TRACK")]
    track: Option<String>,
}

impl WaitingFilter {
    const fn is_empty(&self) -> bool {
        self.tenant.is_none() && self.prefix.is_none() && self.track.is_none()
    }

    fn text(&self) -> String {
        let parts = [
            self.tenant.as_ref().map(|tenant| format!("tenant={tenant}")),
            self.prefix.as_ref().map(|prefix| format!("prefix={prefix}")),
            self.track.as_ref().map(|track| format!("track={track}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListWaiting {
    #[command(flatten)]
    filter: WaitingFilter,
    /// The most requests to list
    #[arg(long, default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Ids of requests; instead of filters
    #[arg(value_parser = |text: &str| RequestId::parse(text))]
    ids: Vec<RequestId>,
    #[command(flatten)]
    filter: WaitingFilter,
    /// All that wait; instead of ids and filters
    #[arg(long)]
    all: bool,
    /// Only count what would be cancelled
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct WaitingRow {
    request_id: String,
    tenant: String,
    prefix: Option<String>,
    track: Option<String>,
    ahead: usize,
    since: u64,
    deadline: u64,
}

#[derive(Default, Serialize)]
struct Cancelled {
    found: u64,
    cancelled: u64,
    ended: u64,
    dry_run: bool,
}

pub(crate) async fn run(context: Context, command: WaitingCommand) -> anyhow::Result<Done> {
    match command {
        WaitingCommand::List(args) => list(&context, args).await,
        WaitingCommand::Cancel(args) => cancel(&context, args).await,
    }
}

/// The places that match, with how many stand before each, as long as `more` of them are wanted.
async fn places(
    context: &Context,
    filter: &WaitingFilter,
    most: usize,
) -> anyhow::Result<Vec<(usize, Place)>> {
    let mut found = Vec::new();
    for listed in context.store.waiting.lines(context.clock.now()).await? {
        let line = &listed.line;
        let is_wanted = filter.tenant.as_ref().is_none_or(|tenant| *tenant == line.tenant)
            && filter.prefix.as_ref().is_none_or(|prefix| Some(prefix) == line.prefix.as_ref());
        if !is_wanted {
            continue;
        }
        let (mut ahead, mut pages) = (0, Pages::new(|after| context.store.waiting.places(line, after, READ)));
        while let Some(page) = pages.next().await? {
            for place in page {
                let of_track = |wanted: &String| track(&place).is_some_and(|track| track == *wanted);
                if filter.track.as_ref().is_none_or(of_track) {
                    found.push((ahead, place));
                }
                ahead += 1;
                if found.len() >= most {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

fn track(place: &Place) -> Option<String> {
    match RequestMessage::decode(&place.message).ok()?.body {
        Body::Allocate { track_id, .. } | Body::MarkForDeletion { track_id, .. } => {
            Some(track_id.to_string())
        }
    }
}

async fn list(context: &Context, args: ListWaiting) -> anyhow::Result<Done> {
    let rows: Vec<_> = places(context, &args.filter, args.limit)
        .await?
        .into_iter()
        .map(|(ahead, place)| WaitingRow {
            request_id: place.request_id.to_string(),
            tenant: place.line.tenant.to_string(),
            prefix: place.line.prefix.as_ref().map(ToString::to_string),
            track: track(&place),
            ahead,
            since: minted_at(place.request_id).as_secs(),
            deadline: place.deadline.as_secs(),
        })
        .collect();
    if args.output.json {
        output::json(&rows)?;
    } else {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let cells = rows.into_iter().map(|row| {
            let (ahead, since, deadline) =
                (row.ahead.to_string(), row.since.to_string(), row.deadline.to_string());
            [row.request_id, row.tenant, or_dash(row.prefix), or_dash(row.track), ahead, since, deadline]
        });
        output::table(["REQUEST", "TENANT", "PREFIX", "TRACK", "AHEAD", "SINCE", "DEADLINE"], cells)?;
    }
    Ok(Done::Ok)
}

async fn cancel(context: &Context, args: Cancel) -> anyhow::Result<Done> {
    let ways = [!args.ids.is_empty(), !args.filter.is_empty(), args.all];
    if ways.into_iter().filter(|way| *way).count() != 1 {
        output::complain("name ids, or filters, or --all, and only one of them");
        return Ok(Done::Misused);
    }
    let mut found = places(context, &args.filter, usize::MAX).await?;
    if !args.ids.is_empty() {
        found.retain(|(_, place)| args.ids.contains(&place.request_id));
    }
    let mut told = Cancelled { found: found.len() as u64, dry_run: args.dry_run, ..Cancelled::default() };
    if !args.dry_run && !found.is_empty() {
        let target = if args.all { "all".to_owned() } else { args.filter.text() };
        let target = if target.is_empty() { format!("{} ids", args.ids.len()) } else { target };
        context.audit(Act::CancelWaiting, &target, Some(told.found)).await?;
        for (_, place) in found {
            let id = place.request_id;
            if retry_on_conflict(&context.entropy, || context.store.requests.cancel(id)).await?.is_applied() {
                told.cancelled += 1;
            } else {
                told.ended += 1;
            }
            context.store.waiting.leave(&place.line, id).await?;
        }
    }
    if args.output.json {
        output::json(&told)?;
    } else {
        let cells = [told.found, told.cancelled, told.ended].map(|count| count.to_string());
        output::table(["FOUND", "CANCELLED", "ENDED"], [cells])?;
    }
    if told.cancelled + told.ended < told.found && !args.dry_run {
        bail!("not all were cancelled");
    }
    Ok(Done::Ok)
}
