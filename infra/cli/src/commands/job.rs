//! `broker job`: runs a job now, through the queue; pauses and resumes its schedule.

use std::time::Duration;

use anyhow::{Context as _, bail};
use broker_domain::{Job, JobReport, LONGEST_STALE_GRACE_HOURS, STALE_GRACE_HOURS, Task, Times};
use broker_messages::MaintenanceMessage;
use broker_queue::{QueueKind, QueueUrls, Sender};
use broker_store::{Act, waiting};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

/// Between two polls for the report.
const LOOK: Duration = Duration::from_millis(200);
/// The deadline of a run: a worker does not begin it later, even if no command waits.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);
/// However long its operator waits: workers refuse what plans further ahead.
const BEGUN_WITHIN_AT_MOST: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Run a job through the queue and print its report
    Run(JobRun),
    /// Pause a job: its schedule does not start it
    Pause(JobName),
    /// Resume a paused job
    Resume(JobName),
}

#[derive(Debug, Args)]
pub(crate) struct JobRun {
    /// sync, expire, cleanup, purge-stale, census, sweep, refill or serve
    #[arg(value_parser = parse_job)]
    pub(crate) job: Job,
    /// Sync: make missing sandboxes stale, however many there are
    #[arg(long)]
    pub(crate) accept_stale: bool,
    /// Purge-stale: how long a sandbox must have been stale
    #[arg(long, default_value_t = STALE_GRACE_HOURS,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(LONGEST_STALE_GRACE_HOURS)))]
    pub(crate) grace_period_hours: u32,
    /// How long to wait for the end of the run
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout_s: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct JobName {
    /// sync, expire, cleanup, purge-stale, census, sweep, refill or serve
    #[arg(value_parser = parse_job)]
    pub(crate) job: Job,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn parse_job(text: &str) -> Result<Job, String> {
    Job::parse(text).ok_or_else(|| format!("is none of {}", Job::ALL.map(Job::as_str).join(", ")))
}

/// Runs a command of `broker job`.
pub(crate) async fn run(context: Context, command: JobCommand) -> anyhow::Result<Done> {
    match command {
        JobCommand::Run(args) => run_now(context, args).await,
        JobCommand::Pause(args) => pause(context, args).await,
        JobCommand::Resume(args) => resume(context, args).await,
    }
}

async fn run_now(context: Context, args: JobRun) -> anyhow::Result<Done> {
    let task = match args.job {
        Job::Sync => Task::Sync { accept_stale: args.accept_stale },
        Job::PurgeStale => Task::PurgeStale { grace_period_hours: args.grace_period_hours },
        job @ (Job::Expire | Job::Cleanup | Job::Census | Job::Sweep | Job::Refill | Job::Serve) => {
            Task::from(job)
        }
    };
    let urls = QueueUrls::resolve(&context.aws, &context.names).await?;
    let sender = Sender::new(context.aws.sqs.clone(), urls.get(QueueKind::Maintenance), 1);
    let (now, wait) = (context.now().await?, Duration::from_secs(args.timeout_s));
    let id = context.entropy.request_id(now);
    let times = Times {
        enqueued_at: now,
        reply_by: now,
        deadline: now.plus(wait.clamp(BEGUN_WITHIN, BEGUN_WITHIN_AT_MOST)),
    };
    context
        .act((Act::RunJob, &task.to_string(), None), async |_| {
            context.store.runs.record(id, task.as_str(), now).await?;
            Ok(sender.send(MaintenanceMessage::run(id, task, times).encode()).await?)
        })
        .await?;
    let looking = async {
        loop {
            if let Some(report) = context.store.runs.get(id).await?.and_then(|run| run.report) {
                return anyhow::Ok(report);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let report = tokio::time::timeout(wait, looking).await.with_context(|| {
        format!(
            "no worker ended the run within {} s; `broker queues` shows whether one takes it",
            args.timeout_s
        )
    })??;
    show(&report, args.output.json)?;
    if let Some(why) = &report.postponed {
        output::complain(why);
    }
    if let Some(reason) = report.aborted {
        anyhow::bail!("{}: {reason}", report.job);
    }
    Ok(match left(&report) {
        Some(left) => {
            output::complain(&left);
            Done::Failed
        }
        None => Done::Ok,
    })
}

/// What is said of a run that left something to the next one.
fn left(report: &JobReport) -> Option<String> {
    let JobReport { job, failed, .. } = report;
    (*failed > 0).then(|| format!("{job}: {failed} failed and are left to the next run"))
}

fn show(report: &JobReport, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(report);
    }
    let counts = [
        ("found", report.found),
        ("changed", report.changed),
        ("skipped", report.skipped),
        ("failed", report.failed),
        ("milliseconds", report.duration_ms),
    ];
    let counts = counts.into_iter().map(|(what, count)| (what.to_owned(), count));
    let details = report.details.iter().map(|(what, count)| (format!("  {what}"), *count));
    output::table(
        [&report.job.to_uppercase(), "COUNT"],
        counts.chain(details).map(|(what, count)| [what, count.to_string()]),
    )
}

#[derive(Serialize)]
struct ShownSchedule {
    job: Job,
    paused: bool,
    paused_at: Option<u64>,
    paused_by: Option<String>,
    next_run_at: u64,
    /// Whether this command changed it.
    changed: bool,
}

async fn pause(context: Context, args: JobName) -> anyhow::Result<Done> {
    let already = context.act((Act::PauseJob, args.job.as_str(), None), async |line| {
        let now = context.now().await?;
        let is_on = context.config.waiting;
        if let Some(why) = waiting::keeps_running(&context.store, args.job, is_on).await? {
            bail!(why);
        }
        let paused = context.store.schedule.pause(args.job, &context.operator, now).await?;
        Ok(context.already_paused(line, paused).await)
    });
    let already = already.await?;
    show_schedule(&context, args, already).await
}

async fn resume(context: Context, args: JobName) -> anyhow::Result<Done> {
    let unchanged = context.act((Act::ResumeJob, args.job.as_str(), None), async |line| {
        let resumed = context.store.schedule.resume(args.job, context.now().await?).await?;
        Ok(if resumed.is_applied() { None } else { Some(context.unchanged(line, "not paused").await) })
    });
    let unchanged = unchanged.await?;
    show_schedule(&context, args, unchanged).await
}

/// Shows what stands; `unchanged` says why nothing was changed.
async fn show_schedule(context: &Context, args: JobName, unchanged: Option<String>) -> anyhow::Result<Done> {
    let tick = context.store.schedule.tick(args.job, Duration::ZERO, context.now().await?).await?;
    let word = if tick.paused.is_some() { "is paused" } else { "runs by its schedule" };
    if args.output.json {
        output::json(&ShownSchedule {
            job: args.job,
            paused: tick.paused.is_some(),
            paused_at: tick.paused.as_ref().map(|pause| pause.since.as_secs()),
            paused_by: tick.paused.and_then(|pause| pause.by),
            next_run_at: tick.next_run_at.as_secs(),
            changed: unchanged.is_none(),
        })?;
    } else {
        let why = unchanged.map(|why| format!("; {why}")).unwrap_or_default();
        output::line(format_args!("{} {word}{why}", args.job))?;
    }
    Ok(Done::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_which_something_failed_is_not_done() {
        let mut report = JobReport::new(&Task::from(Job::Expire));
        report.skipped = 3;
        assert_eq!(left(&report), None);
        report.failed = 2;
        assert_eq!(left(&report).as_deref(), Some("expire: 2 failed and are left to the next run"));
    }
}
