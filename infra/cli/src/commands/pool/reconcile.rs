//! `broker pool reconcile`: a table that was restored is brought up to what was handed out since.
//!
//! It reads JSON lines as `broker pool list --handed-out` writes them, one for each sandbox that was ever handed out:
//! `{"sandbox_id", "name", "external_id", "track", "idempotency_key", "track_name", "allocated_at", "expires_at",
//! "returned"}`, all but the first optional. `broker_domain::reconcile` decides what becomes of each, and
//! `broker_store::reconcile` takes the steps. What it does not do: guess what no line names.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use broker_domain::reconcile::{HandedOut, Listing};
use broker_provider::{AccountId, Listed, Provider};
use broker_store::Act;
use broker_store::reconcile::{ReconcileOptions, ReconcileReport, reconcile};
use clap::Args;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Reconcile {
    /// What was handed out, as `broker pool list --handed-out` prints it: JSON lines {"sandbox_id", "name", "external_id",
    /// "track", "idempotency_key", "track_name", "allocated_at", "expires_at", "returned"}, all but the first optional;
    /// - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) handed_out: String,
    /// Accept fewer lines than sandboxes were allocated at the table's last census
    #[arg(long)]
    pub(crate) accept_fewer: bool,
    /// Write; without it, only report
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: Reconcile) -> anyhow::Result<Done> {
    let lines = read(&args.handed_out)?;
    let listing = match &context.config.provider {
        Some(provider) => {
            let provider = Provider::new(provider, context.clock.clone())?;
            let earlier = listing(provider.accounts().await?);
            Some(listing(provider.accounts().await?).after(earlier))
        }
        None => None,
    };
    let options = ReconcileOptions {
        apply: args.apply,
        accept_fewer: args.accept_fewer,
        lab_duration: context.config.lab_duration,
    };
    // From here on the clock is AWS's.
    context.now().await?;
    let (Context { store, clock, entropy, .. }, count) = (&context, Some(lines.len() as u64));
    let mend = async || Ok(reconcile(store, clock, entropy, lines, listing.as_ref(), options).await?);
    let report = if args.apply {
        context.act((Act::Reconcile, &context.config.table, count), async |_| mend().await).await?
    } else {
        mend().await?
    };
    if args.output.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    conclude(&report)
}

fn read(path: &str) -> anyhow::Result<Vec<HandedOut>> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = lines.map(|(number, line)| {
        serde_json::from_str(line).with_context(|| format!("line {} is none of ours", number + 1))
    });
    read.collect()
}

/// What cannot be deleted does not enter the pool: it counts as unreadable.
fn listing(listed: Listed) -> Listing {
    let (whole, is_empty, there) = (listed.doubt().is_none(), listed.is_empty(), listed.there().clone());
    let Listed { accounts, mut unreadable, .. } = listed;
    let (good, bad): (Vec<_>, Vec<_>) =
        accounts.into_iter().partition(|(_, account)| AccountId::of(&account.external_id).is_some());
    unreadable.extend(bad.into_iter().map(|(id, _)| id));
    let accounts = good.into_iter().map(|(id, account)| (id, (account.name, account.external_id)));
    Listing { accounts: accounts.collect(), there, unreadable, whole, is_empty }
}

/// What is left to do is no success.
fn conclude(report: &ReconcileReport) -> anyhow::Result<Done> {
    if !report.problems.is_empty() {
        bail!("{} lines cannot be followed: mend the lines or the rows", report.problems.len());
    }
    if report.left > 0 {
        bail!("{} sandboxes changed meanwhile: run it again", report.left);
    }
    if !report.suspects.is_empty() {
        bail!("{} items contradict each other: mend them, the pool stays closed", report.suspects.len());
    }
    Ok(Done::Ok)
}

fn print(report: &ReconcileReport) -> std::io::Result<()> {
    let steps = report.steps.iter().map(|(step, count)| {
        let what = match *step {
            "as_it_is" => "as the table says",
            "lease" => "leased to their track",
            "give_up" => "used, to be deleted",
            "end" => "lease ended since",
            "conflict" => "CONFLICT",
            "unknown" => "neither here nor at the provider",
            other => other,
        };
        [what.to_owned(), count.to_string()]
    });
    let mended = ["halves of transactions, mended".to_owned(), report.mended.to_string()];
    let missing = ["not at the provider any more".to_owned(), report.missing.to_string()];
    output::table(["", "SANDBOXES"], steps.chain([mended, missing]))?;
    if report.missing_not_believed > 0 {
        output::line(format_args!(
            "{} available ones that the provider does not list stay: they are too many to be believed. Look there; sync decides",
            report.missing_not_believed
        ))?;
    }
    report.problems.iter().try_for_each(|why| output::line(format_args!("problem: {why}")))?;
    report.suspects.iter().try_for_each(|what| output::line(format_args!("contradiction: {what}")))?;
    if report.dry_run { output::line("\nnothing was written: --apply does") } else { Ok(()) }
}
