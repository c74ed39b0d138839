//! `broker waiting`: the requests that wait in lines; lists them, and cancels some or all.

use std::collections::HashMap;

use anyhow::Context as _;
use broker_api::waiting::reasons;
use broker_domain::waiting::{Place, minted_at};
use broker_domain::{FlavourName, NamePrefix, RequestId, TenantName, TrackId};
use broker_messages::summarize;
use broker_store::waiting::{self, WaitingFilter};
use broker_store::{Act, StoreError};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::commands::policy::{self, no_such_flavour};
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output, ShownRows};

#[derive(Debug, Subcommand)]
pub(crate) enum WaitingCommand {
    /// List requests that wait, each line in its order
    List(ListWaiting),
    /// Cancel requests that wait
    Cancel(Cancel),
}

/// Which requests.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Only of this tenant
    #[arg(long, value_name = "TENANT", value_parser = |text: &str| TenantName::new(text))]
    tenant: Option<TenantName>,
    /// Only those that asked for this flavour
    #[arg(long, value_name = "FLAVOUR", value_parser = |text: &str| FlavourName::new(text), conflicts_with = "prefix")]
    flavour: Option<FlavourName>,
    /// Only those that asked for exactly this name prefix
    #[arg(long = "name-prefix", value_name = "PREFIX", value_parser = |text: &str| NamePrefix::new(text))]
    prefix: Option<NamePrefix>,
    /// Only of this track
    #[arg(long, value_name = "TRACK", value_parser = |text: &str| TrackId::new(text))]
    track: Option<TrackId>,
}

impl FilterArgs {
    /// The filter; none if the policy names no such flavour, which is told.
    async fn filter(self, context: &Context) -> anyhow::Result<Option<WaitingFilter>> {
        let Self { tenant, flavour, mut prefix, track } = self;
        if let Some(name) = flavour {
            let policy = policy::in_force(context).await?;
            let Some(flavour) = policy.flavours().get(&name) else {
                output::complain(&no_such_flavour(name.as_str()));
                return Ok(None);
            };
            prefix = Some(flavour.prefix.clone());
        }
        Ok(Some(WaitingFilter { tenant, prefix, track }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListWaiting {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    rows: ShownRows,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Ids of requests; instead of filters
    #[arg(value_parser = |text: &str| RequestId::parse(text))]
    ids: Vec<RequestId>,
    #[command(flatten)]
    filter: FilterArgs,
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
    /// Why: `empty`, `limit`, `refill_running` or `refill_stopped`; none beside a policy that cannot be read.
    reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Cancelled {
    found: u64,
    cancelled: u64,
    ended: u64,
    unreadable: u64,
    dry_run: bool,
}

pub(crate) async fn run(context: Context, command: WaitingCommand) -> anyhow::Result<Done> {
    match command {
        WaitingCommand::List(args) => list(&context, args).await,
        WaitingCommand::Cancel(args) => cancel(&context, args).await,
    }
}

/// The places that match, at most `most`.
async fn places(context: &Context, filter: &WaitingFilter, most: usize) -> anyhow::Result<Vec<Place>> {
    let found = waiting::list(&context.store, filter, track, None, (most, usize::MAX)).await?;
    Ok(found.places)
}

fn track(message: &str) -> Option<TrackId> {
    summarize(message).track
}

async fn list(context: &Context, args: ListWaiting) -> anyhow::Result<Done> {
    // How many are ahead is counted: with a filter by track the places of others are read as well.
    let Some(filter) = args.filter.filter(context).await? else { return Ok(Done::Misused) };
    let whole_lines = WaitingFilter { track: None, ..filter.clone() };
    let limit = args.rows.most();
    // One more than is shown tells whether there are more.
    let most = if filter.track.is_some() { usize::MAX } else { limit.saturating_add(1) };
    let (mut rows, mut line, mut ahead, mut there_are_more) = (Vec::new(), None, 0, false);
    let places = places(context, &whole_lines, most).await?;
    // Who waits is shown also beside a policy that cannot be read.
    let reasons = match policy::in_force(context).await {
        Ok(policy) => {
            let lines = places.iter().map(|place| place.line.clone()).collect();
            reasons(&context.store, &policy, &lines, context.clock.now()).await?
        }
        Err(error) => {
            output::complain(&format!("why they wait is not known: {error:#}"));
            HashMap::new()
        }
    };
    for place in places {
        if line.as_ref() != Some(&place.line) {
            (line, ahead) = (Some(place.line.clone()), 0);
        }
        let of = track(&place.message);
        let is_wanted = filter.track.is_none() || of == filter.track;
        there_are_more |= is_wanted && rows.len() == limit;
        if is_wanted && rows.len() < limit {
            rows.push(WaitingRow {
                request_id: place.request_id.to_string(),
                tenant: place.line.tenant.to_string(),
                prefix: place.line.prefix.as_ref().map(ToString::to_string),
                track: of.map(|track| track.to_string()),
                ahead,
                since: minted_at(place.request_id).as_secs(),
                deadline: place.deadline.as_secs(),
                reason: reasons.get(&place.line).copied(),
            });
        }
        ahead += 1;
    }
    if args.output.json {
        output::json(&rows)?;
    } else {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let cells = rows.into_iter().map(|row| {
            let (ahead, since, deadline) =
                (row.ahead.to_string(), row.since.to_string(), row.deadline.to_string());
            let (prefix, track) = (or_dash(row.prefix), or_dash(row.track));
            let why = row.reason.unwrap_or("-").to_owned();
            [row.request_id, row.tenant, prefix, track, ahead, since, deadline, why]
        });
        output::table(["REQUEST", "TENANT", "PREFIX", "TRACK", "AHEAD", "SINCE", "DEADLINE", "WHY"], cells)?;
    }
    Ok(args.rows.told(there_are_more, &args.output))
}

async fn cancel(context: &Context, args: Cancel) -> anyhow::Result<Done> {
    let Some(filter) = args.filter.filter(context).await? else { return Ok(Done::Misused) };
    let ways = [!args.ids.is_empty(), !filter.is_empty(), args.all];
    if ways.into_iter().filter(|way| *way).count() != 1 {
        output::complain("name ids, or filters, or --all, and only one of them");
        return Ok(Done::Misused);
    }
    let (mut found, mut missing, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for id in &args.ids {
        match waiting::find(&context.store, *id).await {
            Ok(Some(place)) => found.push(place),
            Ok(None) => missing.push(id.to_string()),
            Err(error @ StoreError::Malformed { .. }) => unreadable.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    if args.ids.is_empty() {
        found = places(context, &filter, usize::MAX).await?;
    }
    let (many, unread) = (found.len() as u64, unreadable.len() as u64);
    let mut told =
        Cancelled { found: many, unreadable: unread, dry_run: args.dry_run, ..Cancelled::default() };
    if !args.dry_run && !found.is_empty() {
        let target = if args.all { "all".to_owned() } else { filter.to_string() };
        let target = if target.is_empty() { format!("{} ids", args.ids.len()) } else { target };
        let act = (Act::CancelWaiting, target.as_str(), Some(told.found));
        let cancelled = context.act(act, async |line| {
            for place in found {
                let cancelled = waiting::cancel(&context.store, &context.entropy, &place).await;
                let before = || format!("{} of {} were cancelled before this", told.cancelled, told.found);
                match cancelled.with_context(before)? {
                    true => told.cancelled += 1,
                    false => told.ended += 1,
                }
            }
            context.ended(line, &serde_json::to_string(&told)?).await;
            Ok(())
        });
        cancelled.await?;
    }
    if args.output.json {
        output::json(&told)?;
    } else {
        let cells = [told.found, told.cancelled, told.ended].map(|count| count.to_string());
        output::table(["FOUND", "CANCELLED", "ENDED"], [cells])?;
    }
    for error in &unreadable {
        output::complain(&error.to_string());
    }
    if !missing.is_empty() {
        output::complain(&format!("no such request waits: {}", missing.join(", ")));
    }
    Ok(if missing.is_empty() && unreadable.is_empty() { Done::Ok } else { Done::Failed })
}
