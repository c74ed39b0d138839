//! `broker quarantine`: sandboxes that are not offered until an operator lets them go.
//!
//! `release` and `retire` take ids, `--cause` or `--all`; what was ever handed out can only be retired.

use broker_api::response::bodies::PooledSandbox;
use broker_domain::quarantine::{LONGEST_REASON, reason};
use broker_domain::{QuarantineCause, SandboxId};
use broker_store::Act;
use broker_store::quarantine::{self, InQuarantine, QuarantineAct, QuarantineReport, QuarantineSelection};
use clap::{Args, Subcommand};

use crate::commands::{policy, sandbox};
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the sandboxes in quarantine, the longest first
    List(Output),
    /// Show one of them
    Show(sandbox::OneSandbox),
    /// Take available sandboxes out of the pool
    Add(Add),
    /// Release sandboxes that were never handed out or to be deleted: they are offered again
    Release(Leave),
    /// Have sandboxes in quarantine deleted at the provider
    Retire(Leave),
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The ids of the sandboxes
    #[arg(required = true, value_parser = |text: &str| SandboxId::new(text))]
    pub(crate) ids: Vec<SandboxId>,
    /// The reason, shown in the list
    #[arg(long, value_parser = printable)]
    pub(crate) why: String,
    /// Only report what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// The ids of the sandboxes
    #[arg(required_unless_present_any = ["cause", "all"], conflicts_with_all = ["cause", "all"],
        value_parser = |text: &str| SandboxId::new(text))]
    pub(crate) ids: Vec<SandboxId>,
    /// All with this cause: operator, gate, deletion or report
    #[arg(long, value_parser = cause, conflicts_with = "all")]
    pub(crate) cause: Option<QuarantineCause>,
    /// All sandboxes in quarantine
    #[arg(long)]
    pub(crate) all: bool,
    /// Only report what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn printable(text: &str) -> Result<String, String> {
    reason(text).ok_or_else(|| format!("is not 1 to {LONGEST_REASON} printable characters"))
}

fn cause(text: &str) -> Result<QuarantineCause, String> {
    let known = QuarantineCause::ALL;
    let found = known.into_iter().find(|cause| cause.as_str() == text);
    found.ok_or_else(|| format!("is none of {}", known.map(QuarantineCause::as_str).join(", ")))
}

/// Runs a command of `broker quarantine`.
pub(crate) async fn run(context: Context, command: QuarantineCommand) -> anyhow::Result<Done> {
    match command {
        QuarantineCommand::List(output) => list(context, output.json).await,
        QuarantineCommand::Show(one) => sandbox::run(context, sandbox::SandboxCommand::Show(one)).await,
        QuarantineCommand::Add(Add { ids, why, dry_run, output }) => {
            let act = QuarantineAct::Add { by: context.operator.clone(), why };
            let selection = QuarantineSelection::Ids(ids);
            perform(context, (act, Act::Quarantine), selection, dry_run, output.json).await
        }
        QuarantineCommand::Release(leave) => {
            go(context, (QuarantineAct::Release, Act::LiftQuarantine), leave).await
        }
        QuarantineCommand::Retire(leave) => go(context, (QuarantineAct::Retire, Act::Retire), leave).await,
    }
}

async fn go(context: Context, act: (QuarantineAct, Act), leave: Leave) -> anyhow::Result<Done> {
    let Leave { ids, cause, all: _, dry_run, output } = leave;
    let selection =
        if ids.is_empty() { QuarantineSelection::All(cause) } else { QuarantineSelection::Ids(ids) };
    perform(context, act, selection, dry_run, output.json).await
}

async fn perform(
    context: Context,
    (act, audited): (QuarantineAct, Act),
    selection: QuarantineSelection,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<Done> {
    let now = context.now().await?;
    let report = if dry_run {
        quarantine::foresee(&context.store, &act, selection, now).await?
    } else {
        let why = match &act {
            QuarantineAct::Add { why, .. } => Some(why.clone()),
            QuarantineAct::Release | QuarantineAct::Retire => None,
        };
        let target = selection.to_string();
        let performed = context.act_because((audited, &target, None), why, async |line| {
            let report =
                quarantine::act_under(&context.store, line, &act, selection, now, |_begun| true).await?;
            context.ended(line, &report.result()).await;
            Ok(report)
        });
        performed.await?
    };
    if json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.refused.is_empty() { Done::Ok } else { Done::Failed })
}

fn print(report: &QuarantineReport) -> std::io::Result<()> {
    let QuarantineReport { dry_run, selected, done, already, refused, more: _ } = report;
    let word = if *dry_run { "would be done" } else { "done" };
    output::line(format_args!("{done} of {selected} {word}"))?;
    already
        .iter()
        .chain(refused)
        .try_for_each(|one| output::line(format_args!("{}: {}", one.sandbox_id, one.why)))
}

async fn list(context: Context, json: bool) -> anyhow::Result<Done> {
    let InQuarantine { records: found, unreadable } = quarantine::list(&context.store).await?;
    for one in unreadable {
        output::complain(&format!("{} cannot be read: {}", one.sandbox_id, one.why));
    }
    if json {
        let policy = policy::in_force_or_none(&context).await;
        let shown = |record| PooledSandbox::new(record, policy.flavour_of(&record.sandbox.name));
        output::json(&found.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(Done::Ok);
    }
    let cells = found.iter().map(|record| {
        let why = record.quarantine.as_ref();
        let used = if record.sandbox.allocation.is_some() { "yes" } else { "no" };
        [
            record.sandbox.id.to_string(),
            record.sandbox.name.to_string(),
            why.map_or_else(|| "-".to_owned(), |why| output::time(why.at)),
            why.map_or("-", |why| why.cause.as_str()).to_owned(),
            why.map_or_else(|| "-".to_owned(), |why| why.by.clone()),
            used.to_owned(),
            why.map_or_else(|| "-".to_owned(), |why| why.reason.clone()),
        ]
    });
    output::table(["SANDBOX", "NAME", "SINCE (UTC)", "CAUSE", "BY", "USED", "WHY"], cells)?;
    Ok(Done::Ok)
}
