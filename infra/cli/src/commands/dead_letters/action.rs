//! `broker dead-letters replay` and `discard`, with progress; after Ctrl-C the same command continues.

use anyhow::bail;
use broker_dead_letters::{Action, ActionOptions, DeadLetters, ReplayReport, Selection};
use broker_domain::DeadLetterId;
use broker_queue::{QueueKind, QueueUrls, Sender};
use broker_runtime::lifecycle::Lifecycle;
use clap::Args;

use super::{Filter, parse_id};
use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output, ProgressLine};

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) selected: SelectedArgs,
    /// Renew the deadlines; without it, an allocate past its deadline ends as expired and claims nothing
    #[arg(long)]
    pub(crate) renew_deadline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    pub(crate) selected: SelectedArgs,
    /// The reason, for the audit
    #[arg(long)]
    pub(crate) why: String,
}

/// The selection and options of replay and discard.
#[derive(Debug, Args)]
pub(crate) struct SelectedArgs {
    /// Ids; instead of filters
    #[arg(value_parser = parse_id)]
    pub(crate) ids: Vec<DeadLetterId>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// All open dead letters; instead of ids and filters
    #[arg(long)]
    pub(crate) all: bool,
    /// Only report what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The most dead letters a second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// The most dead letters in all
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl SelectedArgs {
    /// Whether the letters are selected in exactly one way; never all by omission.
    pub(crate) const fn is_clear(&self) -> bool {
        let (ids, filters) = (!self.ids.is_empty(), !self.filter.is_empty());
        matches!((ids, filters, self.all), (true, false, false) | (false, true, false) | (false, false, true))
    }
}

pub(crate) async fn replay(context: Context, args: Replay) -> anyhow::Result<Done> {
    let action = Action::Replay { renew_deadline: args.renew_deadline };
    perform(context, action, args.selected, "replaying").await
}

pub(crate) async fn discard(context: Context, args: Discard) -> anyhow::Result<Done> {
    let why = args.why.trim().to_owned();
    if why.is_empty() {
        output::complain("--why must give the reason");
        return Ok(Done::Misused);
    }
    perform(context, Action::Discard { why }, args.selected, "discarding").await
}

async fn perform(
    context: Context,
    action: Action,
    args: SelectedArgs,
    what: &'static str,
) -> anyhow::Result<Done> {
    if !args.is_clear() {
        output::complain("select dead letters: ids, or filters, or --all");
        return Ok(Done::Misused);
    }
    let urls = QueueUrls::resolve(&context.aws, &context.names).await?;
    let to = |kind| Sender::new(context.aws.sqs.clone(), urls.get(kind), Sender::MAX_IN_FLIGHT);
    let letters = DeadLetters::new(
        context.store.clone(),
        to(QueueKind::Requests),
        to(QueueKind::Maintenance),
        context.clock.clone(),
        context.entropy.clone(),
    );
    let now = context.now().await?;
    let is_named = !args.ids.is_empty();
    let selection =
        if is_named { Selection::These(args.ids) } else { Selection::Matching(args.filter.at(now)) };
    let lifecycle = Lifecycle::new();
    lifecycle.end_on_signals()?;
    let options = ActionOptions { dry_run: args.dry_run, rate: args.rate, limit: args.limit, within: None };
    // Counts all of them first, for the estimate of the time.
    let total = if args.dry_run { 0 } else { letters.count(selection.clone()).await?.done };
    let total = args.limit.map_or(total, |limit| limit.min(total));
    let clock = context.clock.clone();
    let mut progress = ProgressLine::new(total, what, clock.instant());
    let report =
        |tally: &ReplayReport| progress.at(tally.done + tally.skipped + tally.failed, clock.instant());
    let tally = letters.perform(action, selection, options, &context.operator, &lifecycle.soft, report).await;
    progress.end();
    let tally = tally?;
    show(&tally, args.output.json)?;
    if tally.unreadable > 0 {
        let items = if tally.unreadable == 1 { "item" } else { "items" };
        let left = "cannot be read as dead letters and were left alone";
        output::complain(&format!("{} {items} {left}: see `broker dead-letters list`", tally.unreadable));
    }
    if !tally.missing.is_empty() {
        let ids: Vec<_> = tally.missing.iter().map(ToString::to_string).collect();
        output::complain(&format!("there is no dead letter {}", ids.join(", ")));
    }
    let not_all = (args.all || is_named) && tally.unreadable > 0;
    match (tally.interrupted, tally.failed) {
        // Not all of all, or of those that were named.
        (false, 0) if not_all || !tally.missing.is_empty() => Ok(Done::Failed),
        (false, 0) => Ok(Done::Ok),
        (true, _) => bail!("interrupted: the same command continues"),
        (false, failed) => bail!("{failed} failed: the same command repeats them"),
    }
}

fn show(tally: &ReplayReport, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(tally);
    }
    let counts = [
        ("found", tally.found),
        (if tally.dry_run { "would be done" } else { "done" }, tally.done),
        ("  left behind by another run", tally.resumed),
        ("  past their deadline", tally.past_deadline),
        ("  with a renewed deadline", tally.renewed),
        ("died again meanwhile", tally.died_again),
        ("left alone", tally.skipped),
        ("not done", tally.failed),
        ("cannot be read", tally.unreadable),
        ("no such dead letter", tally.missing.len() as u64),
        ("milliseconds", tally.duration_ms),
    ];
    let counts = counts.into_iter().map(|(what, count)| (what.to_owned(), count));
    let by = tally.by_kind.iter().chain(&tally.by_reason).map(|(word, count)| (format!("  {word}"), *count));
    output::table(["LETTERS", "COUNT"], counts.chain(by).map(|(what, count)| [what, count.to_string()]))?;
    if tally.more {
        output::line("\nThere may be more: --limit ended it.")?;
    }
    Ok(())
}
