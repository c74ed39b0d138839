//! `broker overview`: current problems, counts, and the last hour. The same as `GET /v1/admin/overview` and the console.

use std::collections::BTreeMap;

use broker_api::overview::{HistoryMinute, Overview, OverviewFacts};
use broker_domain::Timestamp;
use broker_queue::{QueueKind, QueueUrls, topology};
use clap::Args;

use crate::commands::policy;
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct OverviewArgs {
    /// Also print the minutes of the last hour
    #[arg(long)]
    pub(crate) history: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: OverviewArgs) -> anyhow::Result<Done> {
    let urls = QueueUrls::resolve(&context.aws, &context.names).await?;
    let queue = urls.get(QueueKind::Requests);
    let depth = topology::depth(&context.aws, &queue, queue.label().to_string()).await?;
    // What is wrong is shown also beside a policy that cannot be read.
    let policy = policy::in_force_or_none(&context).await;
    let (scheduler, now) = (context.config.scheduler, context.clock.now());
    let overview = OverviewFacts::read(&context.store, &policy, scheduler, Some(depth), now);
    let overview = overview.await?.overview();
    if args.output.json {
        output::json(&overview)?;
        return Ok(Done::Ok);
    }
    if overview.problems.is_empty() {
        output::line("Nothing is wrong.\n")?;
    }
    for problem in &overview.problems {
        let (text, section) = (&problem.text, problem.runbook);
        output::line(format_args!("WRONG  {text}  infra/docs/RUNBOOK.md#{section}"))?;
    }
    if !overview.problems.is_empty() {
        output::line("")?;
    }
    output::table(["WHAT", "NOW"], figures(&overview))?;
    if args.history {
        let header =
            ["MINUTE (UTC)", "AVAILABLE", "ALLOCATED", "WAIT", "WORKERS", "ANSWERED", "REFUSED", "P99 MS"];
        output::line("")?;
        output::table(header, overview.history.iter().map(minute))?;
    }
    Ok(Done::Ok)
}

fn figures(overview: &Overview) -> Vec<[String; 2]> {
    let row = |what: &str, now: &dyn ToString| [what.to_owned(), now.to_string()];
    let mut rows = Vec::new();
    if let Some(pool) = &overview.pool {
        rows.extend(pool.states.iter().map(|(state, count)| row(state, count)));
        let free = |counts: &BTreeMap<&'static str, u64>| counts.get("available").copied().unwrap_or(0);
        let flavours = pool.flavours.iter();
        rows.extend(flavours.map(|(flavour, counts)| row(&format!("available, {flavour}"), &free(counts))));
    }
    if let Some(requests) = &overview.requests {
        rows.push(row("requests that wait", &requests.visible));
        rows.push(row("requests in hand", &requests.in_flight));
    }
    rows.push(row("workers", &overview.processes.workers));
    rows.push(row("apis", &overview.processes.apis));
    rows.push(row("dead letters", &overview.dead_letters.open));
    let paused = overview.jobs.iter().filter(|job| job.paused_at.is_some());
    rows.extend(paused.map(|job| row(job.job, &"paused")));
    rows
}

fn minute(minute: &HistoryMinute) -> [String; 8] {
    let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let state = |name| minute.states.as_ref().and_then(|states| states.get(name).copied());
    [
        output::time_of_day(Timestamp::from_secs(minute.at)),
        or_dash(state("available")),
        or_dash(state("allocated")),
        or_dash(minute.visible),
        or_dash(minute.workers),
        (minute.created + minute.existing).to_string(),
        minute.refused.to_string(),
        or_dash(minute.p99_ms),
    ]
}
