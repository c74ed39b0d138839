//! `broker pool adopt`: takes over a table that another tool filled. `broker_domain::adoptions` decides what becomes of each
//! row, and `broker_store::adoption` writes it.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::bail;
use broker_domain::ExternalId;
use broker_provider::AccountId;
use broker_store::Act;
use broker_store::adoption::{AdoptionOptions, AdoptionProgress, AdoptionReport, adopt};
use clap::Args;

use crate::context::Context;
use crate::done::Done;
use crate::output::{self, Output};

#[derive(Debug, Args)]
pub(crate) struct Adopt {
    /// Write; without it, only report
    #[arg(long)]
    pub(crate) apply: bool,
    /// Delete surplus sandboxes too; those that a dry run lists may be in use
    #[arg(long, requires = "apply")]
    pub(crate) confirm: bool,
    /// The seconds between two reads of the table, which must not change meanwhile
    #[arg(long, default_value_t = 10)]
    pub(crate) apart_s: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

pub(crate) async fn run(context: Context, args: Adopt) -> anyhow::Result<Done> {
    let options = AdoptionOptions {
        apply: args.apply,
        confirm: args.confirm,
        apart: Duration::from_secs(args.apart_s),
        lab_duration: context.config.lab_duration,
    };
    let bar = RefCell::new(output::progress(0, "taking over"));
    let began = |total| drop(bar.replace(output::progress(total, "taking over")));
    let stepped = || bar.borrow().inc(1);
    // From here on the clock is AWS's.
    context.now().await?;
    let Context { store, clock, entropy, .. } = &context;
    let is_deletable = |id: &ExternalId| AccountId::of(id).is_some();
    let progress = AdoptionProgress { began: &began, stepped: &stepped };
    let take_over = async || Ok(adopt(store, clock, entropy, options, &is_deletable, &progress).await?);
    let report = if args.apply {
        context.act((Act::Adopt, &context.config.table, None), async |_| take_over().await).await?
    } else {
        take_over().await?
    };
    bar.borrow().finish_and_clear();
    if args.output.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    if !report.has_index {
        output::complain(
            "the table has no usable index: `broker init --adopt-table` adds it, before --apply",
        );
    }
    judge(&report, args.confirm)
}

/// What is left to do is no success.
fn judge(report: &AdoptionReport, confirmed: bool) -> anyhow::Result<Done> {
    let paused = if report.paused { "; the pool stays paused" } else { "" };
    if !report.unreadable.is_empty() {
        bail!(
            "{} sandboxes cannot be taken over: mend or remove their rows by hand{paused}",
            report.unreadable.len()
        );
    }
    if !report.doubled.is_empty() {
        bail!(
            "{} sandboxes are accounts that others have: only people can tell which is which; remove or mend their rows{paused}",
            report.doubled.len()
        );
    }
    if report.dry_run {
        return Ok(Done::Ok);
    }
    if report.left > 0 {
        bail!("{} sandboxes changed meanwhile: run it again{paused}", report.left);
    }
    if !report.is_complete(confirmed) {
        bail!(
            "{} sandboxes are surplus and were left: look at them, then --apply --confirm{paused}",
            report.surplus.len()
        );
    }
    Ok(Done::Ok)
}

fn print(report: &AdoptionReport) -> std::io::Result<()> {
    let kept = report.kept.iter().map(|(status, count)| [format!("to keep, {status}"), count.to_string()]);
    let rows = [["ours already".to_owned(), report.ours.to_string()]].into_iter().chain(kept);
    let surplus = ["surplus, to be deleted".to_owned(), report.surplus.len().to_string()];
    output::table(["", "SANDBOXES"], rows.chain([surplus]))?;
    for surplus in &report.surplus {
        let track = surplus.track.as_deref().unwrap_or("-");
        output::line(format_args!("surplus: {} of {track}: {}", surplus.sandbox_id, surplus.why))?;
    }
    for unreadable in &report.unreadable {
        output::line(format_args!("cannot be taken over: {unreadable}"))?;
    }
    for doubled in &report.doubled {
        output::line(format_args!("refused, another row is the same account: {doubled}"))?;
    }
    for undeletable in &report.undeletable {
        output::line(format_args!("warning, the provider will not delete it: {undeletable}"))?;
    }
    if report.dry_run {
        output::line("\nnothing was written: --apply does")
    } else {
        output::line(format_args!("\n{} taken over", report.adopted))
    }
}
